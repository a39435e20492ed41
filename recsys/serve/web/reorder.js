// Cards glide from where they were to where they are now, so that eyes can follow.

import { calm } from "./dom.js";

const GLIDE = { duration: 450, easing: "cubic-bezier(.2, .8, .2, 1)" };

/**
 * Puts `after` in place of all that follows `fixed` cards, and lets what stays glide there.
 *
 * All of it is taken out and put in anew, what keeps its place too: what was taken out has no place
 * that it is pushed from, so nothing shifts, however late the answer is and however high each card.
 */
export function reorder(list, fixed, after) {
  const { activeElement } = document;
  const before = new Map([...list.children].map((element) => [element, element.getBoundingClientRect()]));
  for (const element of [...list.children].slice(fixed.length)) element.remove();
  list.append(...after.map((card) => card.element));
  if (list.contains(activeElement)) activeElement.focus({ preventScroll: true });
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
