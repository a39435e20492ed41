// Why one viewer is shown what they are shown: what was retrieved, left out, ranked, re-ranked.

import * as api from "../api.js";
import { el, outside } from "../dom.js";
import { moment, number, percent, t } from "../i18n.js";
import { titleOf } from "../reason.js";
import { table } from "./tables.js";

const place = (at) => (at === null ? "–" : number(at + 1));
const figure = (value) => number(value, { maximumFractionDigits: 2 });

/** A form that asks for a viewer, and below it what comes of them. */
export function tracing(user, say) {
  const field = el("input", { id: "trace-user", autocomplete: "off", spellcheck: "false", maxlength: 256, required: true });
  field.value = user;
  const shown = el("div", { role: "region", "aria-label": t("trace") });
  const show = async (event) => {
    event.preventDefault();
    shown.className = "asked long";
    shown.tabIndex = 0; // so that keys scroll it
    try {
      shown.replaceChildren(...(await traced(field.value)));
    } catch (error) {
      say(t("failed", { reason: error.message }), true);
    }
  };
  const label = el("label", { for: "trace-user" }, t("viewer"));
  const form = el("form", { class: "ask", onsubmit: show }, label, field, el("button", { type: "submit" }, t("trace_do")));
  return el("section", { class: "panel" }, el("h3", {}, t("trace")), form, shown);
}

async function traced(user) {
  const answer = await api.trace(user);
  const ids = [...answer.videos, ...answer.history].map(({ video_id }) => video_id ?? "");
  const titles = new Map((await api.details(ids)).map((video) => [video.video_id, titleOf(video)]));
  const weights = Object.entries(answer.rerank).map(([name, weight]) => `${name} ${number(weight)}`);
  const said = answer.is_newcomer ? t("trace_new") : t("trace_known", { n: answer.num_history });
  const how = t("trace_how", { rank: answer.rank, weights: weights.join(", ") || t("none") });
  const named = (id) => outside("span", titles.get(id) ?? id ?? "–");
  const past = answer.history.map((one) => [named(one.video_id), moment(one.time_ms), one.positive ? t("liked_it") : t("passed")]);
  const tasks = Object.keys(answer.videos[0]?.probabilities ?? {});
  const names = ["video", "retrieved", "left_out_why", "ranked", "reranked", "shown_at", "match", "trending", "seen"];
  return [
    outside("p", [said, how, `${t("why_version")}: ${answer.version}`].join(" ")),
    el("p", {}, t("trace_parts")),
    table(t("trace_videos"), [...names.map((name) => t(name)), ...tasks.map((task) => t("why_chance", { task })), t("reason")], answer.videos.map((one) => line(one, named, tasks))).element,
    table(t("trace_history"), [t("video"), t("when"), t("came_of_it")], past).element,
  ];
}

const line = (one, named, tasks) => [
  named(one.video_id),
  place(one.retrieved),
  one.left_out ? t(`left_out_${one.left_out}`) : "",
  place(one.ranked),
  place(one.reranked),
  place(one.shown),
  figure(one.match),
  figure(one.trending),
  figure(one.seen),
  ...tasks.map((task) => percent(one.probabilities[task])),
  one.reason ? t(`kind_${one.reason}`) : "",
];
