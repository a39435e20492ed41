// The feed: what is recommended, what is shown of it, and how it changes with each reaction.

import * as api from "./api.js";
import { Card } from "./card.js";
import { el, isPhone } from "./dom.js";
import { t } from "./i18n.js";
import { Impressions } from "./impressions.js";
import { explained, greeting, titleOf } from "./reason.js";
import { reorder } from "./reorder.js";
import { ACTS, Telling } from "./telling.js";
import { mayAutoplay } from "./video.js";

const PAGE = 12;
const BADGE_MS = 6000;

export class Feed {
  constructor({ user, model, say, open }) {
    Object.assign(this, { user, model, say, openPlayer: open, acts: ACTS[model.front], finished: null });
    this.telling = new Telling({ user, model });
    this.cards = [];
    this.apart = []; // ids that the cursor does not know of
    this.cursor = null;
    this.busy = null;
    this.list = el("div", { role: "feed", "aria-label": t("feed"), class: "feed" });
    this.foot = el("p", { class: "foot" });
    this.element = el("section", { class: "feed-view" }, this.list, this.foot);
    this.impressions = new Impressions(
      (card) => this.telling.shown(card),
      (card, share) => this.#inView(card, share),
    );
    this.bottom = new IntersectionObserver(
      (entries) => entries.some((entry) => entry.isIntersecting) && this.more(),
      { rootMargin: "600px" },
    );
    this.list.addEventListener("keydown", (event) => this.#keys(event));
  }

  close() {
    this.impressions.close();
    this.bottom.disconnect();
    this.cards.forEach((card) => card.clip.stop());
  }

  async start() {
    const answer = await this.#ask({ k: Math.min(PAGE, this.model.max_k) });
    this.#append(answer.cards);
    this.say(greeting(answer, this.user));
    if (!this.cards.length) this.foot.textContent = t("nothing");
    this.bottom.observe(this.foot);
  }

  /** The next page, at the end and nowhere else. */
  more() {
    if (!this.cursor || this.loading) return;
    this.loading = true;
    let came = false;
    this.#busily(async () => {
      this.foot.textContent = t("more_loading");
      const answer = await this.#ask({ k: Math.min(PAGE, this.model.max_k), cursor: this.cursor });
      this.#append(answer.cards);
      came = true;
      this.foot.textContent = this.cursor ? "" : t("feed_end");
      this.bottom.unobserve(this.foot); // so that a foot still in view is seen again
      this.bottom.observe(this.foot);
    }).finally(() => {
      this.loading = false;
      if (!came) this.foot.replaceChildren(el("button", { type: "button", onclick: () => this.more() }, t("retry")));
    });
  }

  /** A like or a refusal: it is kept, and what comes after this card is asked for anew. */
  react(card, kind) {
    if (card.dismissed || this.did(card, kind)) return;
    const { creator_id } = card.item.details;
    const who = { creator: creator_id, title: titleOf(card.item.details) };
    if (kind === "like") card.liked();
    else card.dismiss(t(kind === "hide_creator" ? "hidden_creator" : "hidden_video", who));
    this.telling.note(card, kind); // what comes next looks at it
    this.#busily(() => {
      this.telling.react(card, kind); // in its turn: an answer on its way would come without this card
      return this.#follow(card, t(`changed_${kind}`, who));
    });
  }

  did(card, kind) {
    return kind === "like" ? card.isLiked : card.dismissed;
  }

  watched(card, seconds, share) {
    const finished = this.telling.watched(card, seconds, share);
    if (finished && !this.did(card, "like")) this.finished = card; // a like says more, and was said already
  }

  /** What was watched in the large player is a reaction too: the feed follows it. */
  playerClosed(card) {
    this.impressions.uncover(this.cards);
    if (!this.finished) return;
    const title = titleOf(this.finished.item.details);
    this.finished = null;
    this.#busily(() => this.#follow(card, t("changed_watch", { title })));
  }

  cardOf(id) {
    return this.cards.find((card) => card.id === id);
  }

  next(card) {
    const following = this.cards.slice(this.cards.indexOf(card.from ?? card) + 1);
    return following.find((one) => !one.dismissed && !this.telling.hides(one)) ?? null;
  }

  async #follow(one, said) {
    const card = one.from ?? one; // what has no place in the list stands by that which led to it
    await api.flush();
    const at = this.cards.indexOf(card) + 1;
    const kept = this.cards.slice(0, at).map((one) => one.id);
    const rest = new Map(this.cards.slice(at).map((one) => [one.id, one]));
    const k = Math.min(Math.max(rest.size, PAGE), this.model.max_k);
    const answer = await this.#ask({ k }, kept, rest);
    const from = Math.max(at, this.#lookedAt(card));
    const [fixed, old] = [this.cards.slice(0, from), this.cards.slice(from)];
    this.apart = fixed.map((one) => one.id);
    const places = new Map(old.map((one, place) => [one, place]));
    const after = answer.cards.filter((one) => !fixed.includes(one));
    reorder(this.list, fixed, after);
    this.cards = [...fixed, ...after];
    this.#number();
    let [came, up] = [0, 0];
    after.forEach((one, place) => {
      const before = places.get(one);
      const rose = before === undefined ? 0 : before - place;
      came += before === undefined;
      up += rose > 0;
      one.badge(before === undefined ? t("badge_new") : rose > 0 ? t("badge_up", { n: rose }) : "");
      setTimeout(() => one.badge(""), BADGE_MS);
      this.impressions.again(one);
    });
    this.say(`${said} ${answer.degraded ? greeting(answer, this.user) : t("changed", { came, up })}`);
  }

  /** How many cards stay for whoever has gone on, past a card: all down to those in view. */
  #lookedAt(card) {
    const top = (one) => one.element.getBoundingClientRect().top;
    const gone = card.element.getBoundingClientRect().bottom <= 0;
    return gone ? this.cards.filter((one) => top(one) < innerHeight).length : 0;
  }

  /** Asks for recommendations; those of `cards` that come again keep their elements. */
  async #ask(asked, kept = this.apart, cards = new Map()) {
    this.apart = kept;
    const answer = await api.recommend({ user_id: this.user, exclude: kept, ...asked });
    const items = await explained(answer);
    this.cursor = answer.cursor;
    answer.cards = items.map((item) => {
      const there = cards.get(item.video_id);
      if (!there) return new Card(item, this);
      there.update(item);
      return there;
    });
    return answer;
  }

  #append(cards) {
    this.cards.push(...cards);
    this.list.append(...cards.map((card) => card.element));
    cards.forEach((card) => this.impressions.watch(card));
    this.#number();
  }

  #number() {
    const size = this.cursor ? -1 : this.cards.length; // -1: nobody knows how many there are
    this.cards.forEach((card, place) => {
      card.number(place + 1, size);
      card.element.tabIndex = 0;
    });
  }

  #inView(card, share) {
    if (!isPhone() || !mayAutoplay()) return;
    if (share >= 0.8) card.play();
    else if (share < 0.5) card.clip.stop();
  }

  /** One thing at a time: two answers that cross would leave a list that nobody asked for. */
  #busily(work) {
    const before = this.busy ?? Promise.resolve();
    const mine = before.then(work).catch((error) => this.say(t("failed", { reason: error.message }), true));
    this.busy = mine.finally(() => this.busy === now && (this.busy = null));
    const now = this.busy;
    return mine;
  }

  open(card) {
    if (card.dismissed) return;
    this.finished = null;
    this.impressions.cover(); // what is behind the player is not seen, and does not play
    this.openPlayer(card, this);
  }

  /** The feed pattern: Page Up and Page Down go from article to article. */
  #keys(event) {
    const step = { PageDown: 1, PageUp: -1 }[event.key];
    const article = event.target.closest("article");
    if (!step || !article) return;
    const there = this.cards[this.cards.indexOf(article.card) + step];
    event.preventDefault();
    there?.element.focus();
    there?.element.scrollIntoView({ block: "nearest" });
  }
}
