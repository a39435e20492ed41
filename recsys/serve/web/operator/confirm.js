// What changes something for everybody is asked twice.

import { el } from "../dom.js";
import { t } from "../i18n.js";

/** A button that asks `question` in its own place before it runs `act`. */
export function confirmed(name, question, act) {
  const place = el("span", { class: "confirm" });
  const ask = el("button", { type: "button" }, name);
  const yes = el("button", { type: "button", class: "yes" }, name);
  const no = el("button", { type: "button" }, t("keep_it"));
  const back = () => (place.replaceChildren(ask), ask.focus());
  ask.addEventListener("click", () => {
    place.replaceChildren(el("span", {}, question), yes, no);
    no.focus();
  });
  no.addEventListener("click", back);
  yes.addEventListener("click", () => (back(), act()));
  place.append(ask);
  return place;
}
