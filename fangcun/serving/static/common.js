// What both pages share: language, light and dark, errors in words, and streams of server-sent events.

import { WORDS } from "./words.js";

export const $ = (id) => document.getElementById(id);

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "class") made.className = value;
    else if (value !== false && value !== null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

const remembered = (() => {
  try { return window.localStorage; } catch { return null; } // switched off by the browser's settings
})();
export const keep = (name, value) => { try { remembered?.setItem(`fangcun.${name}`, JSON.stringify(value)); } catch { /* full */ } };
export const recall = (name, otherwise) => {
  try { return JSON.parse(remembered?.getItem(`fangcun.${name}`)) ?? otherwise; } catch { return otherwise; }
};

let language = recall("language", (navigator.language || "").toLowerCase().startsWith("zh") ? "zh" : "en");
const redraws = [];
export const say = (key, ...values) => {
  const word = WORDS[language][key];
  return typeof word === "function" ? word(...values) : word ?? key;
};
export const onLanguage = (redraw) => redraws.push(redraw);
export const locale = () => (language === "zh" ? "zh-CN" : "en");

export function translate() {
  document.documentElement.lang = locale();
  for (const node of document.querySelectorAll("[data-i18n]")) node.textContent = say(node.dataset.i18n);
  for (const node of document.querySelectorAll("[data-i18n-label]")) {
    node.setAttribute("aria-label", say(node.dataset.i18nLabel));
    if (node.tagName === "BUTTON") node.title = say(node.dataset.i18nLabel);
  }
  for (const node of document.querySelectorAll("[data-i18n-placeholder]")) {
    const hint = say(node.dataset.i18nPlaceholder);
    if ("placeholder" in node) node.placeholder = hint;
    else node.dataset.placeholder = hint;
  }
  for (const redraw of redraws) redraw();
}

const dark = window.matchMedia("(prefers-color-scheme: dark)");
function paint() {
  const theme = recall("theme", dark.matches ? "dark" : "light");
  document.documentElement.dataset.theme = theme;
  $("theme").textContent = theme === "dark" ? "☀" : "☾";
  for (const redraw of redraws) redraw();
}

export function setUp() {
  $("language").addEventListener("click", () => {
    language = language === "zh" ? "en" : "zh";
    keep("language", language);
    translate();
  });
  $("theme").addEventListener("click", () => {
    keep("theme", document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    paint();
  });
  dark.addEventListener("change", paint);
  translate();
  paint();
}

export function complain(message) {
  $("error").hidden = !message;
  $("error").textContent = message ?? "";
}

// What the server said, in the reader's language where it is one of the usual cases.
async function reason(response) {
  if (response.status === 401) return say("wantsKey");
  if (response.status === 429 || response.status === 503) return say("busy", response.headers.get("Retry-After") ?? "?");
  try { return say("failed", (await response.json()).error.message); } catch { return say("failed", `HTTP ${response.status}`); }
}

// POST a request with stream: true and hand on each event's content. Throws an Error whose message is for the reader.
export async function stream(path, body, { key, signal, take }) {
  const headers = { "Content-Type": "application/json" };
  if (key) headers.Authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, { method: "POST", headers, body: JSON.stringify(body), signal });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Error(say("unreachable"));
  }
  if (!response.ok) throw new Error(await reason(response));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        const data = part.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart()).join("\n");
        if (!data || data === "[DONE]") continue;
        const event = JSON.parse(data);
        if (event.error) throw new Error(say("failed", event.error.message));
        take(event);
      }
    }
  } catch (error) {
    if (error.name === "AbortError" || !(error instanceof TypeError)) throw error;
    throw new Error(say("unreachable"));
  }
}
