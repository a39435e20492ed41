// One video of the feed: an article with its clip, its facts, its reason and what can be done.

import { calm, el, isPhone, outside } from "./dom.js";
import { clock, spoken, t } from "./i18n.js";
import { titleOf, whyPanel } from "./reason.js";
import { Clip } from "./video.js";

const HOVER_MS = 250; // a pointer that passes over plays nothing

export class Card {
  /** `item` is an `explained` one; `acts` are what it can lead to: open, react, watched. */
  constructor(item, acts) {
    Object.assign(this, { item, acts });
    this.clip = new Clip(item.details, { watched: (s, share) => acts.watched(this, s, share) });
    this.element = this.#make();
    this.element.card = this;
  }

  get id() {
    return this.item.video_id;
  }

  /** Takes another request's item for the same video: its scores, its reason, its impression. */
  update(item) {
    this.item = { ...item, details: this.item.details };
    this.line.textContent = item.line;
    if (this.panel) this.#toggleWhy(), this.#toggleWhy();
  }

  number(position, size) {
    this.element.setAttribute("aria-posinset", position);
    this.element.setAttribute("aria-setsize", size);
  }

  badge(text) {
    this.element.querySelector(".badge")?.remove();
    if (text) this.clip.frame.append(el("span", { class: "badge" }, text));
  }

  /** Instead of the video, what became of it; the card keeps its size. */
  dismiss(text) {
    clearTimeout(this.hovered);
    this.clip.stop();
    this.dismissed = true;
    this.element.classList.add("dismissed");
    this.clip.frame.append(el("p", { class: "note" }, text));
    if (this.element.contains(document.activeElement)) this.element.focus({ preventScroll: true });
    for (const button of this.element.querySelectorAll("button")) button.disabled = true;
  }

  /** What was dismissed plays no more. */
  play() {
    if (!this.dismissed) this.clip.play();
  }

  #make() {
    const { details } = this.item;
    const title = titleOf(details);
    const length = details.duration_s ? spoken(details.duration_s) : "";
    // A screen reader says the title, then the length; what is read and what is seen are one.
    this.open = el(
      "button",
      { class: "open", type: "button", "aria-label": [title, length].filter(Boolean).join(", ") },
      outside("span", title, { class: "title" }),
    );
    this.open.addEventListener("click", () => this.acts.open(this));
    this.line = outside("p", this.item.line, { class: "reason" });
    const creator = details.creator_id ? outside("p", details.creator_id, { class: "creator" }) : null;
    if (details.duration_s)
      this.clip.frame.append(
        el("span", { class: "length", "aria-hidden": "true" }, clock(details.duration_s)),
      );
    const heading = el("h2", {}, this.open);
    const body = el("div", { class: "body" }, heading, creator, this.line, this.#buttons());
    const article = el(
      "article",
      { class: "card", tabindex: "-1", "aria-label": [title, length].filter(Boolean).join(", ") },
      this.clip.frame,
      body,
    );
    this.#playWhenLookedAt(article);
    return article;
  }

  #buttons() {
    const act = (name, run, more = {}) =>
      el("button", { type: "button", class: `act ${name}`, onclick: run, ...more }, t(name));
    this.like = act("like", () => this.acts.react(this, "like"), { "aria-pressed": "false" });
    this.why = act("why", () => this.#toggleWhy(), { "aria-expanded": "false" });
    return el(
      "div",
      { class: "acts" },
      this.like,
      act("not_interested", () => this.acts.react(this, "not_interested")),
      this.item.details.creator_id && act("hide_creator", () => this.acts.react(this, "hide_creator")),
      this.why,
    );
  }

  liked() {
    this.isLiked = true;
    this.like.setAttribute("aria-pressed", "true");
    this.like.textContent = t("liked");
  }

  #toggleWhy() {
    if (this.panel) {
      this.panel.remove();
      this.panel = null;
    } else {
      this.panel = whyPanel(this.item);
      this.element.append(this.panel);
    }
    this.why.setAttribute("aria-expanded", String(Boolean(this.panel)));
  }

  #playWhenLookedAt(article) {
    this.clip.frame.addEventListener("click", () => this.acts.open(this));
    article.addEventListener("pointerenter", (event) => {
      if (event.pointerType !== "mouse" || isPhone() || calm()) return;
      this.hovered = setTimeout(() => this.play(), HOVER_MS);
    });
    article.addEventListener("pointerleave", (event) => {
      clearTimeout(this.hovered);
      if (event.pointerType === "mouse" && !isPhone()) this.clip.stop();
    });
  }
}
