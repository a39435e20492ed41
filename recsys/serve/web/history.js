// What a viewer was shown and what came of it, newest first; each video can be watched again.

import * as api from "./api.js";
import { el, outside } from "./dom.js";
import { Front } from "./front.js";
import { moment, t } from "./i18n.js";
import { row } from "./player.js";

const LIMIT = 60;

export class Past extends Front {
  constructor(context) {
    super(context, "history");
  }

  async draw() {
    const { events } = await api.history(this.user, LIMIT);
    const videos = await api.details(events.map((event) => event.video_id ?? ""));
    const lines = events.map((event, place) => this.#line(event, videos[place]));
    const nothing = events.length ? null : el("p", {}, t("history_empty"));
    return [outside("h2", t("history_of", { user: this.user })), nothing, el("ul", {}, ...lines)];
  }

  #line({ video_id, time_ms, positive, labels }, details) {
    const did = Object.keys(labels).filter((name) => labels[name]);
    if (!positive && !did.length) did.push(t("passed"));
    const facts = outside("small", [moment(time_ms), ...did].join(" · "));
    const card = { id: video_id, item: { details } };
    card.open = row(details, video_id && (() => this.open(card)), facts);
    return (card.element = el("li", { class: positive ? null : "passed" }, card.open));
  }

  /** Whoever looks back is led nowhere. */
  next() {
    return null;
  }
}
