// One chart on a canvas: several curves over a common axis, gaps where a value was not a number, the values under the
// pointer in words. A restart that goes back on the axis begins a new stroke.

import { element } from "./common.js";

const ticks = (low, high, count) => {
  const raw = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(raw || 1));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= raw) ?? raw;
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step) found.push(value);
  return found;
};

export function short(value) {
  const size = Math.abs(value);
  if (size >= 1e9) return `${+(value / 1e9).toPrecision(3)}G`;
  if (size >= 1e6) return `${+(value / 1e6).toPrecision(3)}M`;
  if (size >= 1e4) return `${+(value / 1e3).toPrecision(3)}k`;
  if (size !== 0 && size < 1e-3) return value.toExponential(1);
  return String(+value.toPrecision(4));
}

export function duration(seconds) {
  const s = Math.round(seconds);
  const hours = Math.floor(s / 3600);
  const rest = `${String(Math.floor((s % 3600) / 60)).padStart(hours ? 2 : 1, "0")}:${String(s % 60).padStart(2, "0")}`;
  return hours ? `${hours}:${rest}` : rest;
}

// Exponential mean, corrected at its beginning as in Adam; it starts anew behind a gap.
export function smoothed(values, weight) {
  let mean = 0;
  let corrected = 0;
  return values.map((value) => {
    if (value === null) { mean = corrected = 0; return null; }
    mean = weight * mean + (1 - weight) * value;
    corrected = weight * corrected + (1 - weight);
    return mean / corrected;
  });
}

export class Chart {
  constructor(title) {
    this.canvas = element("canvas", { role: "img" });
    this.heading = element("h3", {}, title);
    this.read = element("div", { class: "read" });
    this.root = element("article", { class: "chart" }, this.heading, this.canvas, this.read);
    this.curves = [];
    this.pointer = null;
    const move = (event) => { this.pointer = event.offsetX; this.draw(); };
    this.canvas.addEventListener("pointermove", move);
    this.canvas.addEventListener("pointerdown", move);
    this.canvas.addEventListener("pointerleave", () => { this.pointer = null; this.draw(); });
  }

  // curves: [{name, colour, x: [], y: [], raw: [] or null}]
  set(title, curves, { axis, log }) {
    this.heading.textContent = title;
    this.canvas.setAttribute("aria-label", title);
    Object.assign(this, { curves, axis, log });
    this.draw();
  }

  draw() {
    const { canvas } = this;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width) return;
    const scale = window.devicePixelRatio || 1;
    canvas.width = width * scale;
    canvas.height = height * scale;
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const usable = (v) => v !== null && (!this.log || v > 0);
    const to = this.log ? Math.log10 : (v) => v;
    const xs = this.curves.flatMap((curve) => curve.x.filter((v) => v !== null));
    const ys = this.curves.flatMap((curve) => curve.y.filter(usable)).map(to);
    if (!xs.length || !ys.length) { this.read.textContent = ""; return; }
    let [left, right] = [xs.reduce((a, b) => Math.min(a, b)), xs.reduce((a, b) => Math.max(a, b))];
    let [low, high] = [ys.reduce((a, b) => Math.min(a, b)), ys.reduce((a, b) => Math.max(a, b))];
    if (left === right) right = left + 1;
    const room = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
    low -= room; high += room;
    const box = { left: 46, right: width - 18, top: 6, bottom: height - 20 };
    const px = (x) => box.left + ((x - left) / (right - left)) * (box.right - box.left);
    const py = (y) => box.bottom - ((to(y) - low) / (high - low)) * (box.bottom - box.top);
    pen.font = `11px ${colour("--sans")}`;
    pen.fillStyle = colour("--faded");
    pen.strokeStyle = colour("--line");
    pen.lineWidth = 1;
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const tick of ticks(low, high, 5)) {
      const y = box.bottom - ((tick - low) / (high - low)) * (box.bottom - box.top);
      pen.beginPath(); pen.moveTo(box.left, y); pen.lineTo(box.right, y); pen.stroke();
      pen.fillText(short(this.log ? 10 ** tick : tick), box.left - 5, y);
    }
    pen.textAlign = "center";
    pen.textBaseline = "top";
    for (const tick of ticks(left, right, Math.max(2, Math.floor(width / 90)))) {
      pen.fillText(this.axis === "seconds" ? duration(tick) : short(tick), px(tick), box.bottom + 5);
    }
    for (const curve of this.curves) {
      for (const [values, alpha] of [[curve.raw, 0.25], [curve.y, 1]]) {
        if (!values) continue;
        pen.globalAlpha = alpha;
        pen.strokeStyle = pen.fillStyle = curve.colour;
        pen.lineWidth = alpha === 1 ? 1.7 : 1;
        pen.beginPath();
        let drawing = false;
        let alone = null;
        let before = -Infinity;
        const dot = () => { if (alone) pen.fillRect(alone[0] - 1.5, alone[1] - 1.5, 3, 3); };
        values.forEach((value, i) => {
          const x = curve.x[i];
          if (!usable(value) || x === null) { dot(); drawing = false; alone = null; return; }
          const point = [px(x), Math.min(Math.max(py(value), box.top - 20), box.bottom + 20)];
          if (!drawing || x < before) { dot(); pen.moveTo(...point); alone = point; } else { pen.lineTo(...point); alone = null; }
          drawing = true;
          before = x;
        });
        pen.stroke();
        dot();
      }
      pen.globalAlpha = 1;
    }
    this.tell(pen, { box, px, py, left, right, usable, colour });
  }

  tell(pen, { box, px, py, left, right, usable, colour }) {
    const at = this.pointer === null ? Infinity : left + ((this.pointer - box.left) / (box.right - box.left)) * (right - left);
    const words = [];
    for (const curve of this.curves) {
      let best = -1;
      curve.x.forEach((x, i) => {
        if (x !== null && usable(curve.y[i]) && (best < 0 || Math.abs(x - Math.min(at, right)) <= Math.abs(curve.x[best] - Math.min(at, right)))) best = i;
      });
      if (best < 0) continue;
      const x = curve.x[best];
      words.push(`${curve.name ? `${curve.name}: ` : ""}${short(curve.y[best])} @ ${this.axis === "seconds" ? duration(x) : short(x)}`);
      if (this.pointer !== null) {
        pen.fillStyle = curve.colour;
        pen.beginPath(); pen.arc(px(x), py(curve.y[best]), 3.5, 0, 2 * Math.PI); pen.fill();
      }
    }
    if (this.pointer !== null) {
      pen.strokeStyle = colour("--faded");
      pen.beginPath(); pen.moveTo(this.pointer, box.top); pen.lineTo(this.pointer, box.bottom); pen.stroke();
    }
    this.read.textContent = words.join("   ");
  }
}
