// What a viewer was shown and what came of it, newest first.

import * as api from "./api.js";
import { el, outside } from "./dom.js";
import { moment, t } from "./i18n.js";
import { row } from "./player.js";

const LIMIT = 60;

export async function historyView({ user, say }) {
  const { events } = await api.history(user, LIMIT);
  const videos = await api.details(events.map((event) => event.video_id ?? ""));
  const lines = events.map((event, place) => {
    const did = Object.keys(event.labels).filter((name) => event.labels[name]);
    if (!event.positive && !did.length) did.push(t("passed"));
    const facts = outside("small", [moment(event.time_ms), ...did].join(" · "));
    return el("li", { class: event.positive ? null : "passed" }, row(videos[place], null, facts));
  });
  say("");
  const nothing = events.length ? null : el("p", {}, t("history_empty"));
  return el("section", { class: "history" }, outside("h2", t("history_of", { user })), nothing, el("ul", {}, ...lines));
}
