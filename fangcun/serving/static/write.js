// The completion page: one text in which the reader's words and the model's are told apart, and every token of the
// model's can be looked at and replaced. Model text only ever becomes text nodes.

import { $, complain, element, keep, onLanguage, recall, say, setUp, stream } from "./common.js";
import { key, settings, setUpControls } from "./controls.js";
import { setUpChat } from "./chat.js";

const paper = $("text");
const past = []; // what undo goes back to
let running = null;
let info = {};

// The paper as [{text, token?}], whatever the browser made of the edits.
function pieces() {
  const found = [];
  const add = (text, token) => { if (text) found.push({ text, token }); };
  const walk = (node, first) => {
    if (node.nodeType === Node.TEXT_NODE) add(node.nodeValue);
    else if (node.nodeName === "BR") add("\n");
    else if (node.classList?.contains("token")) add(node.textContent, node.textContent === node.known?.text ? node.known : undefined);
    else {
      if (!first && /^(DIV|P)$/.test(node.nodeName)) add("\n"); // a line the browser made
      [...node.childNodes].forEach((child) => walk(child, false));
    }
  };
  [...paper.childNodes].forEach((child, i) => walk(child, i === 0));
  return found;
}

function span(known) {
  const made = element("span", { class: "token", tabindex: "0" });
  made.textContent = known.text;
  made.known = known;
  made.style.setProperty("--doubt", String(Math.min(1, -Math.log2(known.probability) / 10))); // ten bits are full red
  return made;
}

function show(list) {
  paper.replaceChildren(...list.map(({ text, token }) => (token ? span(token) : document.createTextNode(text))));
}

const whole = () => pieces().map((piece) => piece.text).join("");

function remember() {
  past.push(pieces());
  if (past.length > 100) past.shift();
  $("undo").disabled = false;
}

// Tokens whose pieces only together make a character are shown as one, at the last of them.
class Writing {
  constructor(place) { this.place = place; this.text = ""; this.held = []; this.n = 0; this.reason = null; }

  take(choice) {
    const scores = choice.logprobs?.tokens ?? [];
    scores.forEach((text, i) => {
      this.held.push({ logprob: choice.logprobs.token_logprobs[i], alternatives: choice.logprobs.top_logprobs?.[i] ?? {} });
    });
    this.n += scores.length;
    if (choice.text) {
      const logprob = this.held.reduce((sum, one) => sum + (one.logprob ?? 0), 0);
      const only = this.held.length === 1 ? this.held[0].alternatives : {};
      const known = { text: choice.text, probability: Math.exp(logprob), alternatives: only };
      const made = span(known);
      made.classList.add("new");
      this.place.append(made);
      this.text += choice.text;
      this.held = [];
    }
    if (choice.finish_reason) this.reason = choice.finish_reason;
  }
}

async function go() {
  if (running) return;
  complain(null);
  hideBubble();
  remember();
  const asked = settings();
  const prompt = whole();
  show(pieces());
  const several = asked.n > 1;
  const places = several ? sheets(asked.n) : [paper];
  const writings = places.map((place) => new Writing(place));
  running = new AbortController();
  busy(true);
  const started = performance.now();
  try {
    await stream("/v1/completions", { model: info.model, prompt, stream: true, logprobs: 5, truncate_prompt_tokens: info.block_size, ...asked }, {
      key: key(), signal: running.signal,
      take: (event) => {
        for (const choice of event.choices) writings[choice.index]?.take(choice);
        const n = writings.reduce((sum, writing) => sum + writing.n, 0);
        const seconds = (performance.now() - started) / 1000;
        $("count").textContent = say("speed", n, (n / Math.max(seconds, 0.001)).toFixed(0));
      },
    });
    if (!several && writings[0].reason === "stop") $("count").textContent += say("ended");
  } catch (error) {
    if (error.name !== "AbortError") complain(error.message);
    if (several && writings.every((writing) => !writing.text)) clearSheets();
  } finally {
    running = null;
    busy(false);
    if (!several) { paper.focus(); save(); }
  }
}

function busy(is) {
  $("go").hidden = is;
  $("stop").hidden = !is;
  paper.setAttribute("contenteditable", String(!is));
  document.body.toggleAttribute("data-busy", is);
}

// Several samples side by side; one of them can be taken.
function sheets(count) {
  const places = [];
  const cards = Array.from({ length: count }, (_, i) => {
    const words = element("div", { class: "words", "aria-label": say("sampleN", i + 1) });
    places.push(words);
    const take = element("button", { "data-i18n": "take", onclick: () => {
      paper.append(...words.querySelectorAll(".token"));
      clearSheets();
      save();
    } }, say("take"));
    return element("article", { class: "sample" }, words, take);
  });
  $("samples").replaceChildren(...cards);
  $("samples").hidden = false;
  return places;
}

function clearSheets() {
  running?.abort();
  $("samples").replaceChildren();
  $("samples").hidden = true;
}

// The bubble over a token: what else could stand there. Choosing one cuts the text there.
const bubble = $("bubble");
let shown = null;
const hideBubble = () => { bubble.hidden = true; shown = null; };

function showBubble(token) {
  if (running || shown === token || !token.known) return;
  shown = token;
  const { text, probability, alternatives } = token.known;
  const share = (p) => `${(100 * p).toFixed(p < 0.1 ? 1 : 0)} %`;
  const rows = Object.entries(alternatives).sort((a, b) => b[1] - a[1]).map(([word, logprob]) => {
    const chosen = word === text;
    return element("button", { type: "button", class: chosen ? "chosen" : "", onclick: () => replace(token, word, Math.exp(logprob)) },
      element("span", { class: "word" }, word.replaceAll("\n", "↵") || "∅"), element("span", { class: "share" }, share(Math.exp(logprob))));
  });
  if (!(text in alternatives)) {
    rows.push(element("button", { type: "button", class: "chosen", disabled: true },
      element("span", { class: "word" }, text.replaceAll("\n", "↵")), element("span", { class: "share" }, share(probability))));
  }
  bubble.replaceChildren(...rows);
  bubble.hidden = false;
  const box = token.getClientRects()[0] ?? token.getBoundingClientRect();
  const left = Math.min(Math.max(8, box.left), window.innerWidth - bubble.offsetWidth - 8);
  const below = box.bottom + bubble.offsetHeight + 8 < window.innerHeight;
  bubble.style.left = `${left}px`;
  bubble.style.top = `${below ? box.bottom + 2 : Math.max(4, box.top - bubble.offsetHeight - 2)}px`;
}

function replace(token, word, probability) {
  hideBubble();
  if (word.includes("\ufffd")) return; // a part of a character is no text
  remember();
  while (token.nextSibling) token.nextSibling.remove();
  if (token.parentNode === paper) {
    const known = { text: word, probability, alternatives: token.known.alternatives };
    token.replaceWith(span(known));
    go();
  }
}

let leaving = null;
function listen(area) {
  area.addEventListener("mouseover", (event) => { clearTimeout(leaving); if (event.target.known) showBubble(event.target); });
  area.addEventListener("focusin", (event) => { if (event.target.known) showBubble(event.target); });
  area.addEventListener("click", (event) => { if (event.target.known) showBubble(event.target); });
  area.addEventListener("mouseleave", () => { leaving = setTimeout(hideBubble, 300); });
}

function save() { keep("text", pieces()); }

async function start() {
  setUp();
  try { info = await (await fetch("/page.json")).json(); } catch { complain(say("unreachable")); }
  $("model").textContent = info.model ?? "";
  $("to-runs").hidden = !info.runs;
  setUpControls(info);
  setUpChat(info);
  show(recall("text", []));
  if (info.openings?.length) {
    $("opening").hidden = false;
    let next = Math.floor(Math.random() * info.openings.length);
    $("opening").addEventListener("click", () => {
      remember();
      show([{ text: info.openings[next++ % info.openings.length] }]);
      save();
    });
  }
  $("go").addEventListener("click", go);
  $("stop").addEventListener("click", () => running?.abort());
  $("clear").addEventListener("click", () => { remember(); clearSheets(); show([]); save(); paper.focus(); });
  $("undo").addEventListener("click", () => {
    const before = past.pop();
    if (before) show(before);
    $("undo").disabled = !past.length;
    clearSheets();
    save();
  });
  $("colour").checked = recall("colour", false);
  const colour = () => { document.body.classList.toggle("coloured", $("colour").checked); keep("colour", $("colour").checked); };
  $("colour").addEventListener("change", colour);
  colour();
  paper.addEventListener("input", () => { hideBubble(); save(); });
  paper.addEventListener("paste", (event) => { // words only, without another page's look
    event.preventDefault();
    document.execCommand("insertText", false, event.clipboardData.getData("text/plain"));
  });
  document.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "Escape") { hideBubble(); running?.abort(); }
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !$("write").hidden) { event.preventDefault(); go(); }
  });
  bubble.addEventListener("mouseenter", () => clearTimeout(leaving));
  bubble.addEventListener("mouseleave", hideBubble);
  window.addEventListener("scroll", hideBubble, { passive: true });
  listen(paper);
  listen($("samples"));
  onLanguage(() => { $("count").textContent = ""; });
  document.body.dataset.ready = "true";
}

start();
