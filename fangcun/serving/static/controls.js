// The sampler's settings: a slider with a number each, what it does in one line, remembered between visits.

import { $, element, keep, onLanguage, recall, say } from "./common.js";
import { WORDS } from "./words.js";

// name: [least, most, step, default]
const RANGES = {
  temperature: [0, 2, 0.05, 0.8], top_k: [0, 200, 1, 50], top_p: [0.05, 1, 0.05, 1], min_p: [0, 0.5, 0.01, 0],
  max_tokens: [16, 1024, 16, 256], n: [1, 8, 1, 1], no_repeat_ngram: [0, 40, 1, 12], repetition_penalty: [0.8, 1.5, 0.05, 1],
  frequency_penalty: [0, 2, 0.05, 0], presence_penalty: [0, 2, 0.05, 0], seed: null,
};
const chosen = { ...defaults(), ...recall("settings", {}) };

function defaults() {
  return Object.fromEntries(Object.entries(RANGES).map(([name, range]) => [name, range ? range[3] : null]));
}

export function settings({ samples = true } = {}) {
  const body = { ...chosen };
  if (body.seed === null) delete body.seed;
  if (!samples) delete body.n;
  return body;
}

export const key = () => $("key").value.trim();

function change(name, raw) {
  const range = RANGES[name];
  const value = raw === "" || !Number.isFinite(Number(raw)) ? (range ? range[3] : null) : Number(raw);
  chosen[name] = range ? Math.min(Math.max(value, range[0]), range[1]) : value === null ? null : Math.trunc(value);
  keep("settings", chosen);
  return chosen[name];
}

function draw() {
  const rows = Object.entries(RANGES).map(([name, range]) => {
    const [label, what] = WORDS[document.documentElement.lang.startsWith("zh") ? "zh" : "en"].sliders[name];
    const number = element("input", { type: "number", id: `set-${name}`, "aria-label": label });
    number.value = chosen[name] ?? "";
    const row = element("div", { class: "slider" }, element("label", { for: `set-${name}` }, label), number);
    if (range) {
      [number.min, number.max, number.step] = range;
      const slider = element("input", { type: "range", min: range[0], max: range[1], step: range[2], "aria-label": label });
      slider.value = chosen[name];
      slider.addEventListener("input", () => { number.value = change(name, slider.value); });
      number.addEventListener("change", () => { slider.value = number.value = change(name, number.value); });
      row.append(slider);
    } else {
      number.addEventListener("change", () => { number.value = change(name, number.value) ?? ""; });
    }
    row.append(element("span", { class: "what" }, what));
    return row;
  });
  $("sliders").replaceChildren(...rows);
}

export function setUpControls(info) {
  if (info.max_new_tokens) RANGES.max_tokens[1] = Math.min(RANGES.max_tokens[1], info.max_new_tokens);
  chosen.max_tokens = Math.min(chosen.max_tokens, RANGES.max_tokens[1]);
  $("key-row").hidden = !info.needs_key;
  $("key").value = recall("key", "");
  $("key").addEventListener("change", () => keep("key", key()));
  $("reset").addEventListener("click", () => {
    Object.assign(chosen, defaults());
    keep("settings", chosen);
    draw();
  });
  if (window.innerWidth < 900) $("settings").open = false;
  onLanguage(draw);
  draw();
  return say;
}
