// One video of a row: its poster, its title and what is said of it, as one button.

import { el, outside } from "./dom.js";
import { clock, spoken, t } from "./i18n.js";
import { titleOf } from "./reason.js";
import { posterOf } from "./video.js";

export class Tile {
  /** `item` is an `explained` one. */
  constructor(item, { open, line = item.details.creator_id, state = "" }) {
    this.item = item;
    const { details } = item;
    const title = titleOf(details);
    const length = details.duration_s ? spoken(details.duration_s) : "";
    const frame = posterOf(details);
    if (length) frame.append(el("span", { class: "length", "aria-hidden": "true" }, clock(details.duration_s)));
    if (state) frame.append(el("span", { class: "badge" }, state));
    this.open = el(
      "button",
      { type: "button", class: "tile", "aria-label": [title, length, state].filter(Boolean).join(", ") },
      frame,
      outside("b", title),
      line && outside("small", line),
    );
    this.open.addEventListener("click", () => open(this));
    this.element = el("li", {}, this.open);
    this.element.card = this; // what an impression is counted of
  }

  get id() {
    return this.item.video_id;
  }
}

/** A titled row that scrolls sideways. */
export function shelf(title, tiles, ...more) {
  return el(
    "section",
    { class: "shelf" },
    outside("h2", title),
    ...more,
    el("ul", { class: "tiles-row" }, ...tiles.map((tile) => tile.element)),
  );
}
