// The events that come of what a viewer does, in the terms of the model that is served.

import * as api from "./api.js";

const LIKED = /like|fav|thumb/i;
const WATCHED = /watch|view|click|complet|finish/i;
export const REFUSALS = ["not_interested", "hide_creator"];

/** The event of each reaction to a card; `labels(…)` are those of tasks with such names. */
const REACTIONS = {
  // Who likes a video has watched it, whatever the model calls the two.
  like: ({ id }, labels) => ({ type: "task", video_id: id, positive: true, labels: labels(LIKED, WATCHED) }),
  // A video that was seen elsewhere counts as watched.
  done: ({ id }, labels) => ({ type: "task", video_id: id, positive: true, labels: labels(WATCHED) }),
  not_interested: ({ id }) => ({ type: "not_interested", video_id: id }),
  hide_creator: ({ item }) => ({ type: "hide_creator", creator_id: item.details.creator_id }),
};

export class Telling {
  /** `finished` is the share of its length from which on a video was watched. */
  constructor({ user, model, finished }) {
    Object.assign(this, { user, model, finished });
    this.reactions = []; // what was done on this page, and with which card
  }

  /** Of a card: an object with `id` and `item`, whose impression the event names. */
  tell(card, event) {
    const { impression_id, version } = card.item;
    api.tell({ user_id: this.user, impression_id, version, ...event });
  }

  shown(card) {
    this.tell(card, { type: "exposure", video_id: card.id, place: card.item.place });
  }

  /** Tells how much of a video was watched, and says whether that is `finished` or more. */
  watched(card, seconds, share) {
    const done = share >= this.finished;
    const { duration } = card.item.details; // in the catalogue's unit, as training has it
    // Said in so many words: where a like is what counts as positive, to watch is not yet to like.
    const labels = { ...this.#labels(this.did(card, "like"), LIKED), ...this.#labels(done, WATCHED) };
    const watched = this.model.watched && duration ? { watched: share * duration } : {};
    this.tell(card, { type: "view", video_id: card.id, positive: done, labels, ...watched });
    return done;
  }

  /** What a button of the page tells. */
  react(card, kind) {
    this.reactions.push({ card, kind });
    this.tell(card, REACTIONS[kind](card, (...names) => this.#labels(true, ...names)));
  }

  did(card, kind) {
    return this.reactions.some((one) => one.kind === kind && one.card.id === card.id);
  }

  /** Whether a card's creator was hidden. */
  hides({ item }) {
    const { creator_id } = item.details;
    return this.reactions.some(({ card, kind }) => kind === "hide_creator" && card.item.details.creator_id === creator_id);
  }

  #labels(done, ...names) {
    const meant = this.model.tasks.filter((task) => names.some((name) => name.test(task)));
    return Object.fromEntries(meant.map((task) => [task, done]));
  }
}
