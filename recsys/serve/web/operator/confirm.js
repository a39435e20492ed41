// What changes something for everybody is asked twice.

import { el } from "../dom.js";
import { t } from "../i18n.js";

/** A button that asks `question`, a text or a field to fill in, in its place before it runs `act`. */
export function confirmed(name, question, act) {
  const place = el("span", { class: "confirm" });
  const ask = el("button", { type: "button" }, name);
  const yes = el("button", { type: "button", class: "yes" }, name);
  const no = el("button", { type: "button" }, t("keep_it"));
  const back = () => (place.replaceChildren(ask), ask.focus());
  ask.addEventListener("click", () => {
    place.replaceChildren(el("span", {}, question), yes, no);
    (place.querySelector("input") ?? no).focus();
  });
  no.addEventListener("click", back);
  yes.addEventListener("click", () => {
    if (place.querySelector(":invalid")?.reportValidity() === false) return;
    back();
    act();
  });
  place.append(ask);
  return place;
}
