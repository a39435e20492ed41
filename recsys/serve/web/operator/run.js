// Whether the server is well: its replicas, its versions, what was shown, what the model was worth.

import * as api from "../api.js";
import { el } from "../dom.js";
import { ago, number, percent, t } from "../i18n.js";
import { Chart, count } from "./charts.js";
import { evaluation } from "./evaluation.js";
import { previewing } from "./preview.js";
import { Replicas } from "./replicas.js";
import { table } from "./tables.js";
import { tracing } from "./trace.js";
import { Versions } from "./versions.js";

const EVERY_MS = 2000;
const LOG_EVERY = 5; // looks at the log and at the versions are this many times rarer

export async function runView({ user, model, say }) {
  const replicas = new Replicas();
  const versions = new Versions(say);
  const tiles = el("dl", { class: "tiles" });
  const steps = table(t("run_steps"), [t("run_step"), t("run_times"), t("run_mean")], []);
  const each = table(t("replicas"), ["replica", "version", "run_rate", "run_p99", "run_lag", "memory", "heard"].map((name) => t(name)), []);
  each.element.classList.add("figures");
  const fresh = table(t("new_videos"), [t("video"), t("state"), t("came"), t("until_indexed"), t("until_shown")], []);
  const charts = chartsOf();
  const clicks = new Chart(t("click_rates"), { unit: (value) => (value === null ? "–" : percent(value)) });
  const since = el("p", { class: "note" });
  const element = el(
    "section",
    { class: "run" },
    el("h2", {}, t("run_title")),
    tiles,
    el("p", { class: "note" }, t("run_since")),
    el("div", { class: "charts" }, ...charts.map(({ chart }) => chart.element)),
    each.element,
    steps.element,
    versions.element,
    clicks.element,
    since,
    fresh.element,
    tracing(user, say),
    previewing(say),
    evaluation(model.metrics),
  );
  const lookAtReplica = async () => {
    replicas.take(await api.run(replicas.newest()));
    tiles.replaceChildren(...tilesOf(replicas, model));
    steps.fill(replicas.steps().map(({ step, times, mean_ms }) => [t(`run_step_${step}`), number(times), ms(mean_ms)]));
    each.fill(replicas.rows().map((one) => [one.replica, one.version, count(one.rate), ms(one.p99), t("events", { n: one.lag }), mib(one.memory), ago(one.heard)]));
    for (const { chart, of } of charts) await chart.draw(replicas.lines(of));
  };
  const lookAtLog = async () => {
    await versions.look();
    const shown = await api.shownLately();
    const marks = shown.versions.map(({ first_ms, version }) => ({ time_ms: first_ms, name: version }));
    await clicks.draw(shown.versions.map(ratesOf), marks.slice(1));
    since.textContent = [
      shown.since_ms ? t("clicks_since", { since: ago(shown.since_ms), minutes: shown.span_ms / 60_000 }) : t("nothing_shown"),
      marks.slice(1).map((mark) => t("took_over", { version: mark.name, when: ago(mark.time_ms) })).join(" "),
      shown.left_out ? t("left_out", { n: number(shown.left_out) }) : "",
    ].join(" ");
    fresh.fill(shown.new_videos.map(newVideo));
  };
  // All is there before it is shown, so that nothing moves; without a token this is where it ends.
  await lookAtReplica();
  await lookAtLog();
  say("");
  let [timer, looks, failed] = [null, 0, false];
  const again = async () => {
    try {
      await lookAtReplica();
      if (looks++ % LOG_EVERY === 0) await lookAtLog();
      if (failed) say("");
      failed = false;
    } catch (error) {
      failed = true;
      say(t("failed", { reason: error.message }), true);
    }
    if (timer !== "closed") timer = setTimeout(again, EVERY_MS);
  };
  timer = setTimeout(again);
  const close = () => {
    clearTimeout(timer);
    timer = "closed";
    for (const { chart } of [...charts, { chart: clicks }]) chart.close();
  };
  return { element, close };
}

const ms = (value) => (value === null || value === undefined ? "–" : t("ms", { n: number(value, { maximumFractionDigits: 1 }) }));
const mib = (bytes) => (bytes === null ? "–" : t("mib", { n: number(bytes / 2 ** 20, { maximumFractionDigits: 0 }) }));
const after = (from, to) => (from && to ? t("seconds", { n: number((to - from) / 1000, { maximumFractionDigits: 1 }) }) : "–");

function chartsOf() {
  const chart = (name, unit, of) => ({ chart: new Chart(t(name), { unit }), of });
  return [
    chart("run_rate", count, "requests_per_s"),
    chart("run_p50", ms, "p50_ms"),
    chart("run_p99", ms, "p99_ms"),
    chart("run_batch", count, "mean_batch"),
    chart("run_lag", count, "log_lag_events"),
    chart("memory", mib, "memory_bytes"),
  ];
}

function tilesOf(replicas, model) {
  const total = (name) => number(replicas.sum((one) => one[name]));
  const trend = (of) => replicas.trend(of);
  return [
    tile(t("run_version"), model.version),
    tile(t("run_videos"), number(replicas.now("videos") ?? model.num_videos), trend("videos")),
    tile(t("run_viewers"), number(model.num_users), trend("users")),
    tile(t("run_events"), number(replicas.now("events") ?? 0), trend("events")),
    tile(t("run_rate"), count(replicas.now("requests_per_s")), trend("requests_per_s")),
    tile(t("run_requests"), total("requests")),
    tile(t("run_errors"), total("errors")),
    tile(t("run_refused"), total("refused")),
    tile(t("run_degraded"), total("degraded")),
    tile(t("run_unknown"), t("unknown_of", { users: total("unknown_users"), videos: total("unknown_videos") })),
    tile(t("run_index"), model.index),
  ];
}

const SVG = "http://www.w3.org/2000/svg";

function tile(name, value, line = null) {
  return el("div", {}, el("dt", {}, name), el("dd", {}, value, line && spark(line)));
}

/** The course of a figure, without a scale. */
function spark(values) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${Math.max(1, values.length - 1)} 20`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const top = Math.max(...values, 1e-9);
  const line = document.createElementNS(SVG, "polyline");
  line.setAttribute("points", values.map((value, x) => `${x},${19 - (18 * value) / top}`).join(" "));
  svg.append(line);
  return svg;
}

const ratesOf = ({ version, spans }) => ({
  name: version,
  points: spans.map(({ begin_ms, impressions, clicks }) => [begin_ms, impressions ? clicks / impressions : null]),
});

function newVideo({ video_id, state, reason, received_ms, indexed_ms, first_shown_ms }) {
  const told = reason ? `${t(`state_${state}`)}: ${t(`refused_${reason}`)}` : t(`state_${state}`);
  return [video_id, told, ago(received_ms), after(received_ms, indexed_ms), after(received_ms, first_shown_ms)];
}
