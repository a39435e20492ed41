// The events that come of what a viewer does, in the terms of the model that is served.

import * as api from "./api.js";

const LIKED = /like|fav|thumb/i;
const WATCHED = /watch|view|click|complet|finish/i;
export const REFUSALS = ["not_interested", "hide_creator"];
const REACTS = ["like", ...REFUSALS];
/** What the player offers to do with a video, by what the page opens with. */
export const ACTS = { feed: REACTS, rows: REACTS, course: ["done"] };
/** The share of its length from which on a video was watched, or a lesson finished. */
const FINISHED = { feed: 0.5, rows: 0.5, course: 0.8 };

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
  constructor({ user, model }) {
    Object.assign(this, { user, model, finished: FINISHED[model.front] });
    this.reactions = []; // what was done on this page, and with which card
    this.whole = new Set(); // showings whose video was watched as far as counts
  }

  /** Of a card: an object with `id` and `item`, whose impression the event names. */
  tell(card, event) {
    const { impression_id, version } = card.item;
    api.tell({ user_id: this.user, impression_id, version, ...event });
  }

  shown(card) {
    this.tell(card, { type: "exposure", video_id: card.id, place: card.item.place });
  }

  /** Tells for how long a video was watched, and says whether that is `finished` of it or more. */
  watched(card, seconds, share) {
    const done = share >= this.finished;
    const showing = `${card.item.impression_id} ${card.id}`;
    if (done) this.whole.add(showing);
    // What is said of a showing last counts: a short look takes back nothing of before.
    const positive = this.whole.has(showing) || this.did(card, "like") || this.did(card, "done");
    // Said in so many words: where a like is what counts as positive, to watch is not yet to like.
    const labels = { ...this.#labels(this.did(card, "like"), LIKED), ...this.#labels(positive, WATCHED) };
    const watched = this.#inUnit(card.item.details, seconds, share);
    this.tell(card, { type: "view", video_id: card.id, positive, labels, ...watched });
    return done;
  }

  /** Watch time in the unit of the catalogue's durations; none where nothing says what that is. */
  #inUnit({ duration }, seconds, share) {
    const { watched_per_s: per_s } = this.model;
    if (duration && share) return { watched: share * duration };
    return per_s === null ? {} : { watched: seconds * per_s };
  }

  /** Keeps what was done, which may be told of later. */
  note(card, kind) {
    if (!this.did(card, kind)) this.reactions.push({ card, kind });
  }

  /** What a button of the page tells. */
  react(card, kind) {
    this.note(card, kind);
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
