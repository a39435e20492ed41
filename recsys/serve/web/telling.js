// The events that come of what a viewer does, in the terms of the model that is served.

import * as api from "./api.js";

const LIKED = /like|fav|thumb/i;
const REACTIONS = { like: "liked", done: "done", not_interested: "notInterested", hide_creator: "hideCreator" };
const WATCHED = /watch|view|click|complet|finish/i;

export class Telling {
  /** `finished` is the share of its length from which on a video was watched. */
  constructor({ user, model, finished }) {
    Object.assign(this, { user, model, finished });
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
    const labels = this.#labels(done, WATCHED);
    const watched = this.model.watched && duration ? { watched: share * duration } : {};
    this.tell(card, { type: "view", video_id: card.id, positive: done, labels, ...watched });
    return done;
  }

  /** What a button of the page tells. */
  react(card, kind) {
    this[REACTIONS[kind]](card);
  }

  /** Who likes a video has watched it, whatever the model calls the two. */
  liked(card) {
    const labels = this.#labels(true, LIKED, WATCHED);
    this.tell(card, { type: "task", video_id: card.id, positive: true, labels });
  }

  /** A video that was seen elsewhere counts as watched. */
  done(card) {
    this.tell(card, { type: "task", video_id: card.id, positive: true, labels: this.#labels(true, WATCHED) });
  }

  notInterested(card) {
    this.tell(card, { type: "not_interested", video_id: card.id });
  }

  hideCreator(card) {
    this.tell(card, { type: "hide_creator", creator_id: card.item.details.creator_id });
  }

  #labels(done, ...names) {
    const meant = this.model.tasks.filter((task) => names.some((name) => name.test(task)));
    return Object.fromEntries(meant.map((task) => [task, done]));
  }
}
