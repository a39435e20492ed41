// What the fronts of several rows, and the history, have in common: impressions, the player, and what follows it.

import * as api from "./api.js";
import { el } from "./dom.js";
import { t } from "./i18n.js";
import { Impressions } from "./impressions.js";
import { explained, greeting, titleOf } from "./reason.js";
import { ACTS, Telling } from "./telling.js";
import { Tile } from "./tile.js";

export class Front {
  constructor({ user, model, say, open }, name) {
    Object.assign(this, { user, model, say, openPlayer: open, acts: ACTS[model.front] });
    this.telling = new Telling({ user, model });
    this.element = el("section", { class: name });
    this.impressions = new Impressions(
      (tile) => this.telling.shown(tile),
      () => {},
    );
    this.tiles = []; // those on the page
  }

  close() {
    this.impressions.close();
  }

  /** Draws all of it anew; `said` is what there is to say of why. */
  async start(said = null) {
    Object.assign(this, { said: null, answer: null, drawn: [] });
    const parts = await this.draw();
    this.element.replaceChildren(...parts.filter(Boolean));
    this.tiles = this.drawn;
    this.tiles.forEach((tile) => this.impressions.watch(tile));
    const greets = this.answer && (!said || this.answer.degraded);
    this.say([said, greets && this.greet(this.answer)].filter(Boolean).join(" "));
  }

  /** Recommendations as tiles; what a row says of each is `line(item)`. */
  async tilesOf(asked, { line, state, order = null } = {}) {
    const k = Math.min(asked.k, this.model.max_k);
    const answer = await api.recommend({ user_id: this.user, ...asked, k });
    if (!this.answer?.degraded) this.answer = answer; // one that is degraded is told of
    const items = await explained(answer);
    if (order) items.sort((one, other) => order.indexOf(one.video_id) - order.indexOf(other.video_id));
    return items.map((item, place) => this.tile({ ...item, place }, { line: line?.(item), state }));
  }

  tile(item, more) {
    const tile = new Tile(item, { open: (one) => this.open(one), ...more });
    this.drawn.push(tile);
    return tile;
  }

  open(card) {
    this.impressions.cover();
    this.openPlayer(card, this);
  }

  newcomer = "greeting_new"; // the text for whoever nothing is known of

  /** What there is to say of an answer. */
  greet(answer) {
    const begins = !answer.known_user && !answer.degraded;
    return begins ? t(this.newcomer, { user: this.user }) : greeting(answer, this.user);
  }

  /** Tells of it, and says whether enough of it was watched. */
  watched(card, seconds, share) {
    const finished = this.telling.watched(card, seconds, share);
    const kind = this.acts.includes("done") ? "done" : "watch";
    if (finished) this.said ??= t(`changed_${kind}`, { title: titleOf(card.item.details) }); // a like says more
    return finished;
  }

  cardOf(id) {
    return this.tiles.find((tile) => tile.id === id);
  }

  /** The next video of the same row whose creator was not hidden since. */
  next(card) {
    let following = (card.from ?? card).element?.nextElementSibling;
    while (following && this.telling.hides(following.card)) following = following.nextElementSibling;
    return following?.card ?? null;
  }

  did(card, kind) {
    return this.telling.did(card, kind);
  }

  react(card, kind) {
    const { details } = card.item;
    this.telling.react(card, kind);
    this.said = t(`changed_${kind}`, { title: titleOf(details), creator: details.creator_id });
  }

  /** What happened in the player changes the rows. */
  async playerClosed(card) {
    this.impressions.uncover(this.tiles);
    if (!this.said) return;
    const { said } = this;
    try {
      await api.flush();
      await this.start(said);
      const there = this.tiles.find((tile) => tile.id === card.id && tile.open.isConnected);
      (there?.open ?? this.element.querySelector("button"))?.focus({ preventScroll: true });
    } catch (error) {
      this.say(t("failed", { reason: error.message }), true);
    }
  }
}
