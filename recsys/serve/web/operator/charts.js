// Lines over time, drawn by uPlot, which is fetched when the first of them is needed.

import { el } from "../dom.js";
import { language, number, t } from "../i18n.js";

const HEIGHT = 150;
const COLORS = ["--accent", "--second", "--third", "--soft"];
const TICKS = { second: "numeric", minute: "2-digit", hour: "2-digit" };

let loading = null;
const library = () =>
  (loading ??= new Promise((done, fail) => {
    const script = el("script", { src: "web/vendor/uplot/uPlot.iife.min.js" });
    script.addEventListener("load", () => done(window.uPlot));
    script.addEventListener("error", () => fail(new Error("uPlot")));
    document.head.append(script);
  }));

/**
 * A chart of `lines`, each `{ name, points: [[time_ms, value], …] }`, and `marks`, each
 * `{ time_ms, name }`: a vertical line. A screen reader is told the newest values.
 */
export class Chart {
  constructor(title, { unit = String, from = 0 } = {}) {
    Object.assign(this, { title, unit, from, plot: null, names: "", marks: [] });
    this.canvas = el("div", { class: "plot", role: "img", "aria-label": title });
    this.element = el("figure", { class: "chart" }, el("figcaption", {}, title), this.canvas);
  }

  async draw(lines, marks = []) {
    const uPlot = await library();
    if (!this.canvas.isConnected) return; // its width is not known yet, or not any more
    this.marks = marks;
    const newest = lines.map(({ name, points }) => `${name} ${this.unit(points.at(-1)?.[1] ?? null)}`);
    this.canvas.setAttribute("aria-label", `${this.title}: ${newest.join(", ")}`);
    const data = aligned(lines);
    const names = lines.map(({ name }) => name).join("\n");
    const width = Math.max(200, this.canvas.clientWidth);
    if (this.plot && this.names === names && this.plot.width === width) return this.plot.setData(data);
    this.plot?.destroy();
    this.names = names;
    this.plot = new uPlot(this.#options(lines, width), data, this.canvas);
  }

  close() {
    this.plot?.destroy();
    this.plot = null;
  }

  #options(lines, width) {
    const color = (name) => painted(this.canvas, name);
    const axis = { stroke: color("--soft"), grid: { stroke: color("--line"), width: 1 } };
    const time = new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit" });
    const series = lines.map(({ name }, place) => ({
      label: name,
      stroke: color(COLORS[place % COLORS.length]),
      width: 2,
      spanGaps: false,
      value: (_, value) => this.unit(value),
      points: { show: lines.some(({ points }) => points.length < 3) },
    }));
    return {
      width,
      height: HEIGHT,
      padding: [null, 28, null, null], // half of the last time's label
      series: [{ label: t("time"), value: (_, s) => (s === null ? "" : new Date(1000 * s).toLocaleTimeString(language, TICKS)) }, ...series],
      scales: { x: { range: spanned }, y: { range: (_, low, high) => [this.from, high > this.from ? high * 1.05 : this.from + 1] } },
      axes: [
        { ...axis, space: 80, values: (_, ticks) => once(ticks.map((s) => time.format(1000 * s))) },
        { ...axis, size: 64, values: (_, ticks) => ticks.map((value) => this.unit(value)) },
      ],
      cursor: { drag: { x: false, y: false } },
      hooks: { draw: [(plot) => this.#mark(plot, color("--wrong"))] },
    };
  }

  #mark(plot, color) {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.strokeStyle = color;
    ctx.setLineDash([4, 4]);
    for (const { time_ms } of this.marks) {
      const x = plot.valToPos(time_ms / 1000, "x", true);
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  }
}

/** Ticks of one minute have its name at the first of them. */
const once = (names) => names.map((name, place) => (name === names[place - 1] ? "" : name));

/** At least a minute, in seconds. */
const spanned = (_, first, last) => (last === null ? [first, last] : [Math.min(first, last - 60), last]);

/** A colour of the page as a canvas takes it: a canvas knows neither variables nor `light-dark`. */
function painted(element, name) {
  element.style.color = `var(${name})`;
  const color = getComputedStyle(element).color;
  element.style.color = "";
  return color;
}

/** Columns as uPlot wants them: all times in seconds, and of each line a value or null. */
function aligned(lines) {
  const times = [...new Set(lines.flatMap(({ points }) => points.map(([time]) => time)))].sort((a, b) => a - b);
  if (times.length === 1) times.unshift(times[0] - 60_000); // around a single time uPlot draws a day
  const column = ({ points }) => {
    const known = new Map(points);
    return times.map((time) => known.get(time) ?? null);
  };
  return [times.map((time) => time / 1000), ...lines.map(column)];
}

export const count = (value) => (value === null ? "–" : number(value, { maximumFractionDigits: 1 }));
