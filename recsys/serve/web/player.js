// The large player: one clip, what is similar to it or follows it beside it, and what comes next.

import * as api from "./api.js";
import { el, outside } from "./dom.js";
import { clock, spoken, t } from "./i18n.js";
import { titleOf, whyPanel } from "./reason.js";
import { REFUSALS } from "./telling.js";
import { Clip, posterOf } from "./video.js";

const COUNTDOWN_S = 5;
const DONE = { like: "liked", done: "lesson_done" }; // what a button says afterwards
const SIMILAR = {
  name: "similar_to",
  of: async (video, user_id) => {
    const { items } = await api.similar(video.video_id, 8, { user_id });
    return (await api.details(items.map((item) => item.video_id))).map((one) => ({ video: one }));
  },
};

/** A video that only what is similar leads to: what a card is, without an impression or a place in a list. */
class Similar {
  constructor(details, from, telling) {
    Object.assign(this, { id: details.video_id, item: { details }, from }); // `from`: the card that led to it
    this.isLiked = telling.did(this, "like");
    this.dismissed = REFUSALS.some((kind) => telling.did(this, kind));
  }

  liked() {
    this.isLiked = true;
  }

  dismiss() {
    this.dismissed = true;
  }
}

/** Opens a card of a feed in a dialog; closes itself with Escape, and gives the focus back. */
export function openPlayer(card, feed) {
  const stage = el("div", { class: "stage" });
  const { name, of } = feed.beside ?? SIMILAR; // the name of a text, and what stands below it
  const beside = el("aside", { "aria-label": t(name) });
  const close = el("button", { type: "button", class: "close", autofocus: true }, t("close"));
  const told = el("p", { class: "told", role: "status" });
  const dialog = el("dialog", { class: "player" }, close, told, stage, beside);
  let [clip, timer, shown] = [null, null, null];
  const quiet = () => (timer = clearInterval(timer));

  function show(one) {
    quiet();
    clip?.stop();
    told.textContent = "";
    shown = one;
    const video = one.item.details;
    const watched = (seconds, share) => feed.watched(one, seconds, share);
    clip = new Clip(video, { controls: true, watched, ended: () => countdown(one) });
    const title = titleOf(video);
    dialog.setAttribute("aria-label", title);
    const creator = video.creator_id && outside("p", video.creator_id, { class: "creator" });
    clip.frame.append(el("div", { class: "next" })); // over the picture, so that it pushes nothing down
    stage.replaceChildren(clip.frame, outside("h2", title, { tabindex: "-1" }), creator ?? "", actsOf(one));
    clip.play();
    fillBeside(video);
    keepFocus();
  }

  /** Where what had the focus is gone, the title has it: what is read aloud, and where keys go on from. */
  function keepFocus() {
    if (!dialog.contains(document.activeElement)) stage.querySelector("h2").focus({ preventScroll: true });
  }

  /** What can be done with a video. */
  function actsOf(one) {
    const kinds = feed.acts.filter((kind) => kind !== "hide_creator" || one.item.details.creator_id);
    const buttons = kinds.map((kind) => {
      const act = ({ currentTarget }) => {
        if (currentTarget.getAttribute("aria-disabled") === "true") return;
        feed.react(one, kind);
        settle();
        if (timer) countdown(one); // what was to come next may be refused now
        if (feed.beside) fillBeside(one.item.details); // it may have opened some
      };
      return el("button", { type: "button", class: `act ${kind}`, onclick: act });
    });
    const settle = () => {
      const refused = REFUSALS.some((kind) => feed.did(one, kind));
      kinds.forEach((kind, place) => {
        const done = feed.did(one, kind);
        buttons[place].setAttribute("aria-disabled", String(done || refused)); // `disabled` would lose the focus
        buttons[place].textContent = t((done && DONE[kind]) || kind);
      });
    };
    settle();
    const why = el("button", { type: "button", class: "act why", "aria-expanded": "false" }, t("why"));
    const acts = el("div", { class: "acts" }, ...buttons, one.item.whole_line && why);
    why.addEventListener("click", () => {
      const panel = stage.querySelector(".facts");
      if (panel) panel.remove();
      else acts.after(whyPanel(one.item));
      stage.querySelector(".facts")?.scrollIntoView({ block: "nearest" }); // there may be no room left below the video
      why.setAttribute("aria-expanded", String(!panel));
    });
    return acts;
  }

  function countdown(one) {
    quiet();
    const following = feed.next(one, clip.share);
    const place = stage.querySelector(".next");
    if (!following) return place.replaceChildren();
    let left = COUNTDOWN_S;
    const text = el("span", { role: "timer" });
    const go = () => show(following);
    const end = () => (quiet(), place.replaceChildren(), keepFocus());
    const stop = el("button", { type: "button", onclick: end }, t("stop"));
    const tick = () => document.hidden || (left ? (text.textContent = t("next_in", { s: left--, n: left })) : go());
    const title = outside("b", titleOf(following.item.details));
    place.replaceChildren(
      el("p", {}, `${t("up_next")}: `, title),
      text,
      el("button", { type: "button", onclick: go }, t("play_next")),
      stop,
    );
    tick();
    timer = setInterval(tick, 1000);
  }

  async function fillBeside(video) {
    const list = el("ul");
    beside.replaceChildren(el("h3", {}, t(name)), list);
    try {
      const lines = (await of(video, feed.user)).map(lineOf);
      list.append(...lines.map((line) => el("li", {}, line)));
    } catch (error) {
      list.replaceWith(el("p", {}, t("failed", { reason: error.message })));
    }
  }

  /** A video beside the one that plays; a note says why it cannot be opened yet. */
  function lineOf({ video, card = null, note = null }) {
    if (note) return row(video, null, el("small", {}, note));
    return row(video, () => show(card ?? feed.cardOf(video.video_id) ?? new Similar(video, shown.from ?? shown, feed.telling)));
  }

  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    quiet();
    clip?.stop();
    dialog.remove();
    (card.dismissed ? card.element : card.open).focus();
    if (feed.element.isConnected) feed.playerClosed(card); // else another view is there by now
  });
  document.body.append(dialog);
  dialog.showModal();
  show(card);
}

/** A line of a list: a small poster, the title, the length. */
export function row(video, onclick, ...more) {
  const title = titleOf(video);
  const length = video.duration_s ? spoken(video.duration_s) : "";
  const frame = posterOf(video);
  const text = el(
    "span",
    {},
    outside("b", title),
    outside("small", [video.creator_id, video.duration_s && clock(video.duration_s)].filter(Boolean).join(" · ")),
    ...more,
  );
  const name = [title, length, ...more.map((one) => one.textContent)].filter(Boolean).join(", ");
  return onclick
    ? el("button", { type: "button", class: "row", "aria-label": name, onclick }, frame, text)
    : el("div", { class: "row" }, frame, text);
}
