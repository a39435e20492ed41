// Tables of figures.

import { el, outside } from "../dom.js";
import { percent, t } from "../i18n.js";

export const share = (value) => percent(value, 1);

/** A figure, with the ends of its interval where it has one; `of` writes each. */
export function withInterval(value, ends, of = share) {
  if (!ends) return of(value);
  const [low, high] = ends.map((end) => of(end));
  return t("rate", { value: of(value), low, high });
}

const cell = (value) => (value instanceof Node ? el("td", {}, value) : outside("td", String(value ?? "–")));

/** Rows are lists of texts or elements; the first of each is what the row is about. */
export function table(caption, names, rows) {
  const body = el("tbody");
  const head = el("tr", {}, ...names.map((name) => el("th", { scope: "col" }, name)));
  const element = el("table", {}, el("caption", {}, caption), el("thead", {}, head), body);
  fill(body, rows);
  const scroll = el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": caption }, element);
  return { element: scroll, fill: (now) => fill(body, now) };
}

function fill(body, rows) {
  body.replaceChildren(
    ...rows.map(([first, ...others]) => {
      const about = first instanceof Node ? el("th", { scope: "row" }, first) : outside("th", String(first), { scope: "row" });
      return el("tr", {}, about, ...others.map(cell));
    }),
  );
}
