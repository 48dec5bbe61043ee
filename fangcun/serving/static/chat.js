// Conversations with a tuned model: turns that can be edited and answered anew. Enter sends, but not while an input method
// is composing.

import { $, complain, element, keep, onLanguage, recall, say, stream } from "./common.js";
import { key, settings } from "./controls.js";

let turns = recall("turns", []);
let running = null;
let info = {};

const remember = () => keep("turns", turns);

function draw() {
  $("turns").replaceChildren(...turns.map((turn, i) => {
    const words = element("div", { class: "words" });
    words.textContent = turn.content;
    const tools = element("div", { class: "tools" });
    if (!running && turn.role === "user") tools.append(element("button", { class: "quiet", type: "button", onclick: () => edit(i) }, say("edit")));
    if (!running && turn.role === "assistant") {
      tools.append(element("button", { class: "quiet", type: "button", onclick: () => { turns = turns.slice(0, i); answer(); } }, say("again")));
    }
    return element("li", { class: `turn ${turn.role}` }, words, tools);
  }));
}

function edit(i) {
  const item = $("turns").children[i];
  const area = element("textarea", { rows: "3", "aria-label": say("message") });
  area.value = turns[i].content;
  item.replaceChildren(area, element("div", { class: "tools" },
    element("button", { class: "quiet", type: "button", onclick: () => { turns = [...turns.slice(0, i), { role: "user", content: area.value }]; answer(); } }, say("save")),
    element("button", { class: "quiet", type: "button", onclick: draw }, say("cancel"))));
  area.focus();
}

async function answer() {
  if (running) return;
  complain(null);
  running = new AbortController();
  const system = $("system").value.trim();
  const messages = [...(system ? [{ role: "system", content: system }] : []), ...turns];
  const turn = { role: "assistant", content: "" };
  turns.push(turn);
  $("send").hidden = true;
  $("chat-stop").hidden = false;
  draw();
  const words = $("turns").lastElementChild.querySelector(".words");
  const started = performance.now();
  let n = 0;
  try {
    const asked = settings({ samples: false });
    await stream("/v1/chat/completions", { model: info.model, messages, stream: true, stream_options: { include_usage: true }, ...asked }, {
      key: key(), signal: running.signal,
      take: (event) => {
        turn.content += event.choices[0]?.delta?.content ?? "";
        words.textContent = turn.content;
        n = event.usage?.completion_tokens ?? n + (event.choices[0]?.delta?.content ? 1 : 0);
        $("chat-count").textContent = say("speed", n, (n / Math.max((performance.now() - started) / 1000, 0.001)).toFixed(0));
      },
    });
  } catch (error) {
    if (error.name !== "AbortError") complain(error.message);
    if (!turn.content) turns.pop();
  } finally {
    running = null;
    $("send").hidden = false;
    $("chat-stop").hidden = true;
    remember();
    draw();
  }
}

export function setUpChat(about) {
  info = about;
  const mode = (chat) => {
    $("chat").hidden = !chat;
    $("write").hidden = chat;
    $("mode-chat").setAttribute("aria-pressed", String(chat));
    $("mode-write").setAttribute("aria-pressed", String(!chat));
    keep("mode", chat ? "chat" : "write");
  };
  $("mode-chat").hidden = !info.chat;
  $("mode-write").addEventListener("click", () => mode(false));
  $("mode-chat").addEventListener("click", () => mode(true));
  mode(Boolean(info.chat) && recall("mode", "write") === "chat");
  $("system").value = recall("system", "");
  $("system").addEventListener("change", () => keep("system", $("system").value));
  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    const content = $("message").value.trim();
    if (!content || running) return;
    $("message").value = "";
    turns.push({ role: "user", content });
    remember();
    answer();
  });
  $("message").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229) {
      event.preventDefault();
      $("ask").requestSubmit();
    }
  });
  $("chat-stop").addEventListener("click", () => running?.abort());
  $("chat-clear").addEventListener("click", () => { running?.abort(); turns = []; remember(); draw(); });
  onLanguage(() => { if (!running) draw(); });
  draw();
}
