// Cards glide from where they were to where they are now, so that eyes can follow.

import { calm } from "./dom.js";

const GLIDE = { duration: 450, easing: "cubic-bezier(.2, .8, .2, 1)" };

/** Puts `after` in place of all that follows `fixed` cards, and lets what stays glide there. */
export function reorder(list, fixed, after) {
  const before = new Map([...list.children].map((element) => [element, element.getBoundingClientRect()]));
  const wanted = [...fixed, ...after].map((card) => card.element);
  const kept = new Set(wanted);
  for (const element of [...list.children]) if (!kept.has(element)) element.remove();
  wanted.forEach((element, place) => {
    if (list.children[place] !== element) list.insertBefore(element, list.children[place] ?? null);
  });
  if (calm()) return;
  for (const card of after) glide(card.element, before.get(card.element));
}

function glide(element, from) {
  if (!from) {
    element.animate([{ opacity: 0 }, { opacity: 1 }], GLIDE);
    return;
  }
  const to = element.getBoundingClientRect();
  const [dx, dy] = [from.left - to.left, from.top - to.top];
  if (dx || dy) element.animate([{ transform: `translate(${dx}px, ${dy}px)` }, { transform: "none" }], GLIDE);
}
