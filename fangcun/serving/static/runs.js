// Training as it goes: the runs of a folder, their curves over each other, plan against reality, samples by step.
// It asks again every two seconds, and the server answers "not modified" where nothing was written.

import { $, complain, element, keep, onLanguage, recall, say, setUp } from "./common.js";
import { Chart, duration, short, smoothed } from "./plot.js";

const FIRST = ["train.loss", "eval.val_loss", "eval.val_bits_per_byte", "train.bits_per_byte", "train.lr", "train.grad_norm",
  "train.tokens_per_second", "train.memory_bytes", "train.update_ratio", "samples.loop_share", "samples.distinct_4", "train.data_wait_share"];
const HUES = ["#b3342a", "#2a6f8f", "#8a6d1f", "#4c7a3d", "#7a4b8c", "#c0702a", "#3d6b6b", "#9c4a6a"];
const POLL_MILLISECONDS = 2000;

let chosen = recall("runs", null);
let listed = [];
let watching = true;
const details = new Map(); // name -> {tag, data}
const written = new Map();
const charts = new Map();
const colours = new Map();

const hue = (name) => {
  if (!colours.has(name)) colours.set(name, HUES[colours.size % HUES.length]);
  return colours.get(name);
};

async function ask(path, known) {
  const key = recall("key", "");
  const headers = known?.tag ? { "If-None-Match": known.tag } : {};
  if (key) headers.Authorization = `Bearer ${key}`;
  const response = await fetch(path, { headers });
  if (response.status === 304) return known;
  if (response.status === 401) throw new Error(say("wantsKey"));
  if (!response.ok) return null;
  return { tag: response.headers.get("ETag"), data: await response.json() };
}

async function look() {
  try {
    const found = await ask("/api/runs");
    if (found) ({ runs: listed, watching } = found.data);
    const names = listed.map((run) => run.name);
    if (chosen === null && names.length) chosen = [names[0]];
    for (const name of (chosen ?? []).filter((one) => names.includes(one))) {
      const query = `run=${encodeURIComponent(name)}`;
      details.set(name, await ask(`/api/runs/detail?${query}`, details.get(name)) ?? { data: null });
      written.set(name, await ask(`/api/runs/samples?${query}`, written.get(name)) ?? { data: null });
    }
    complain(null);
    draw();
  } catch (error) {
    complain(error instanceof TypeError ? say("unreachable") : error.message);
  }
}

async function watch() {
  if (!document.hidden) await look();
  setTimeout(watch, POLL_MILLISECONDS);
}

const active = () => (chosen ?? []).filter((name) => details.get(name)?.data && listed.some((run) => run.name === name));

function drawList() {
  $("list").replaceChildren(...listed.map((run) => {
    const box = element("input", { type: "checkbox", "aria-label": run.name });
    box.checked = (chosen ?? []).includes(run.name);
    box.addEventListener("change", () => {
      chosen = box.checked ? [...(chosen ?? []), run.name] : (chosen ?? []).filter((name) => name !== run.name);
      keep("runs", chosen);
      look();
    });
    const facts = [say("stepN", run.step)];
    if (run.val_loss ?? run.loss) facts.push(`loss ${short(run.val_loss ?? run.loss)}`);
    if (run.bits_per_byte) facts.push(`${short(run.bits_per_byte)} bits/byte`);
    if (run.tokens_per_second) facts.push(`${short(run.tokens_per_second)} tok/s`);
    const item = element("label", { class: "run" }, box,
      element("span", { class: "name" }, run.name, element("span", { class: `state ${run.state}` }, say(run.state))),
      element("span", { class: "facts" }, facts.join(" · ")));
    if (box.checked) item.style.setProperty("--hue", hue(run.name));
    return element("li", {}, item);
  }));
}

function drawPlan() {
  const head = element("tr", {}, ...["name", "progress", "done", "planned", "tokens", "speedHead", "memory", "seconds", "left"].map((word) => element("th", {}, say(word))));
  const rows = active().map((name) => {
    const { data } = details.get(name);
    const { plan } = data;
    const bar = element("progress", { max: plan.steps || 1, "aria-label": say("progress") });
    bar.value = plan.steps ? Math.min(data.step, plan.steps) : 0;
    const cells = [name, bar, say("stepN", data.step), plan.steps ? say("stepN", plan.steps) : "–",
      data.tokens ? `${short(data.tokens)}${plan.steps ? ` / ${short(plan.steps * plan.tokens_per_step)}` : ""}` : "–",
      data.tokens_per_second ? `${short(data.tokens_per_second)}/s` : "–",
      data.memory_bytes ? `${short(data.memory_bytes / 2 ** 20)} MiB` : "–", duration(data.seconds),
      data.state === "running" && plan.seconds_left !== undefined ? duration(plan.seconds_left) : "–"];
    return element("tr", {}, ...cells.map((cell) => element("td", {}, cell)));
  });
  $("plan").replaceChildren(head, ...rows);
}

function drawCharts() {
  const axis = $("axis").value;
  const weight = Number($("smooth").value);
  const names = active();
  const found = new Set(names.flatMap((name) => Object.keys(details.get(name).data.curves)));
  const wanted = FIRST.filter((key) => found.has(key));
  for (const key of wanted) {
    if (!charts.has(key)) charts.set(key, new Chart(say(key)));
    const curves = names.filter((name) => details.get(name).data.curves[key]).map((name) => {
      const curve = details.get(name).data.curves[key];
      const raw = key.endsWith("_bytes") ? curve.y.map((v) => (v === null ? null : v / 2 ** 20)) : curve.y;
      const smooth = weight > 0 && (key === "train.loss" || key === "train.grad_norm" || key === "train.bits_per_byte");
      return { name: names.length > 1 ? name : "", colour: hue(name), x: curve[axis], y: smooth ? smoothed(raw, weight) : raw, raw: smooth ? raw : null };
    });
    charts.get(key).pending = [say(key), curves, { axis, log: $("log").checked }];
  }
  const roots = wanted.map((key) => charts.get(key).root);
  if (roots.some((root, i) => $("charts").children[i] !== root) || $("charts").children.length !== roots.length) $("charts").replaceChildren(...roots);
  for (const key of wanted) charts.get(key).set(...charts.get(key).pending);
}

let drawnSamples = "";
function drawSamples() {
  const state = JSON.stringify([document.documentElement.lang, active().map((name) => [name, written.get(name)?.tag])]);
  if (state === drawnSamples) return; // a reader may be scrolling there
  drawnSamples = state;
  const blocks = active().flatMap((name) => {
    const prompts = new Map();
    for (const sample of written.get(name)?.data?.samples ?? []) {
      if (!prompts.has(sample.prompt)) prompts.set(sample.prompt, []);
      prompts.get(sample.prompt).push(sample);
    }
    return [...prompts].map(([prompt, samples]) => element("div", {},
      element("p", { class: "prompt" }, `${active().length > 1 ? `${name} · ` : ""}${prompt || say("opening")}`),
      element("div", { class: "strip", tabindex: "0" }, ...samples.reverse().map((sample) => {
        const text = element("span", {});
        text.textContent = sample.text;
        return element("article", {}, element("b", {}, say("atStep", sample.step)), text);
      }))));
  });
  $("written").replaceChildren(...blocks);
}

function draw() {
  drawList();
  const any = active().length > 0;
  $("shown").hidden = !any;
  $("empty").hidden = any;
  $("empty").textContent = !watching ? say("notWatching") : listed.length ? say("choose") : say("noRuns");
  if (any) { drawPlan(); drawCharts(); drawSamples(); }
  document.body.dataset.ready = "true";
}

for (const id of ["axis", "smooth", "log"]) $(id).addEventListener("input", () => { keep(id, id === "log" ? $(id).checked : $(id).value); drawCharts(); });
$("axis").value = recall("axis", "step");
$("smooth").value = recall("smooth", "0.6");
$("log").checked = recall("log", false);
setUp();
onLanguage(draw);
window.addEventListener("resize", () => { if (active().length) drawCharts(); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
fetch("/page.json").then((r) => r.json()).then((info) => { $("to-write").hidden = !info.model; }).catch(() => {});
watch();
