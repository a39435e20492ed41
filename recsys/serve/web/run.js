// Whether the server is well: what it serves, and its figures of now.

import * as api from "./api.js";
import { el } from "./dom.js";
import { moment, number, t } from "./i18n.js";
import { counted, parse, quantile, total } from "./figures.js";

const EVERY_MS = 2000;
const POINTS = 60;
const SVG = "http://www.w3.org/2000/svg";

export async function runView({ model, say }) {
  const tiles = el("dl", { class: "tiles" });
  const steps = el("tbody");
  const note = el("p", { class: "note" });
  const lines = { rate: [], p99: [] };
  const element = el(
    "section",
    { class: "run" },
    el("h2", {}, t("run_title")),
    tiles,
    note,
    table(t("run_steps"), [t("run_step"), t("run_times"), t("run_mean")], steps),
    evaluation(model.metrics),
  );
  let before = null;
  const look = async () => {
    const now = { at: performance.now(), ...parse(await api.metrics()) };
    const passed = before ? (now.at - before.at) / 1000 : 0;
    const requests = total(now, "recsys_request_seconds_count");
    const rate = before ? (requests - total(before, "recsys_request_seconds_count")) / passed : 0;
    lines.rate.push(rate);
    lines.p99.push(1000 * quantile(now, "recsys_request_seconds", 0.99));
    for (const line of Object.values(lines)) if (line.length > POINTS) line.shift();
    before = now;
    tiles.replaceChildren(...tilesOf(now, model, lines));
    steps.replaceChildren(...stepsOf(now));
    note.textContent = t("run_replica", { replica: now.replica });
  };
  await look();
  say("");
  const timer = setInterval(() => look().catch((error) => say(t("failed", { reason: error.message }), true)), EVERY_MS);
  return { element, close: () => clearInterval(timer) };
}

function tilesOf(now, model, lines) {
  const ms = (seconds) => t("ms", { n: number(1000 * seconds, { maximumFractionDigits: 1 }) });
  const status = (code) => counted(now, "recsys_request_seconds_count", "status", (s) => s.startsWith(code));
  return [
    tile(t("run_version"), model.version),
    tile(t("run_made"), moment(Date.parse(model.created))),
    tile(t("run_videos"), number(model.num_videos)),
    tile(t("run_viewers"), number(model.num_users)),
    tile(t("run_index"), model.index),
    tile(t("run_rate"), number(lines.rate.at(-1), { maximumFractionDigits: 1 }), lines.rate),
    tile(t("run_p50"), ms(quantile(now, "recsys_request_seconds", 0.5))),
    tile(t("run_p99"), ms(quantile(now, "recsys_request_seconds", 0.99)), lines.p99),
    tile(t("run_errors"), number(status("5"))),
    tile(t("run_lag"), t("events", { n: total(now, "recsys_log_lag_events") })),
    tile(t("run_events"), number(counted(now, "recsys_events_total", "status", (s) => s === "accepted"))),
    tile(t("run_unknown"), number(total(now, "recsys_unknown_ids_total"))),
  ];
}

function tile(name, value, line = null) {
  return el("div", {}, el("dt", {}, name), el("dd", {}, value, line && spark(line)));
}

/** A line of what has been since the page opened. */
function spark(values) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${POINTS} 20`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const top = Math.max(...values, 1e-9);
  const points = values.map((value, x) => `${x},${19 - (18 * value) / top}`).join(" ");
  const line = document.createElementNS(SVG, "polyline");
  line.setAttribute("points", points);
  svg.append(line);
  return svg;
}

function stepsOf(now) {
  const counts = now.samples.filter(({ name }) => name === "recsys_step_seconds_count");
  return counts.map(({ labels, value }) => {
    const sum = counted(now, "recsys_step_seconds_sum", "step", (step) => step === labels.step);
    const mean = value ? t("ms", { n: number((1000 * sum) / value, { maximumFractionDigits: 2 }) }) : "–";
    return el("tr", {}, el("th", { scope: "row" }, labels.step), el("td", {}, number(value)), el("td", {}, mean));
  });
}

function evaluation(metrics) {
  const flat = Object.entries(metrics).filter(([, value]) => typeof value === "number");
  const nested = Object.entries(metrics).flatMap(([group, values]) =>
    values && typeof values === "object"
      ? Object.entries(values)
          .filter(([, value]) => typeof value === "number")
          .map(([name, value]) => [`${group} ${name}`, value])
      : [],
  );
  const rows = [...flat, ...nested].map(([name, value]) =>
    el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, number(value, { maximumFractionDigits: 4 }))),
  );
  return table(t("run_evaluation"), [t("run_metric"), t("run_value")], el("tbody", {}, ...rows));
}

function table(caption, names, body) {
  const head = el("tr", {}, ...names.map((name) => el("th", { scope: "col" }, name)));
  return el("table", {}, el("caption", {}, caption), el("thead", {}, head), body);
}
