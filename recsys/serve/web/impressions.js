// What was really shown: half of it visible for 600 ms counts, once a request and video.

const VISIBLE = 0.5;
const AFTER_MS = 600;

export class Impressions {
  /** `shown(card)` is told once for each impression id and video; `inView(card, share)` always. */
  constructor(shown, inView) {
    Object.assign(this, { shown, inView });
    this.told = new Set();
    this.timers = new Map();
    this.observer = new IntersectionObserver((entries) => entries.forEach((e) => this.#see(e)), {
      threshold: [0, VISIBLE, 0.8],
    });
  }

  watch(card) {
    this.observer.observe(card.element);
  }

  close() {
    this.observer.disconnect();
    this.timers.forEach(clearTimeout);
  }

  /** Behind the player nothing is seen. */
  cover() {
    this.covered = true;
    this.timers.forEach(clearTimeout);
  }

  /** Once it is closed, what stands there is looked at anew. */
  uncover(cards) {
    this.covered = false;
    cards.forEach((card) => this.again(card));
  }

  /** After a reorder a card stands in another request's list: it may be shown anew. */
  again(card) {
    this.observer.unobserve(card.element);
    this.observer.observe(card.element);
  }

  #see({ target, intersectionRatio, isIntersecting }) {
    if (this.covered) return;
    const { card } = target;
    this.inView(card, isIntersecting ? intersectionRatio : 0);
    clearTimeout(this.timers.get(card));
    this.timers.delete(card);
    if (!isIntersecting || intersectionRatio < VISIBLE) return;
    this.timers.set(card, setTimeout(() => this.#count(card), AFTER_MS));
  }

  #count(card) {
    const key = `${card.item.impression_id} ${card.id}`;
    if (this.told.has(key) || card.dismissed) return;
    this.told.add(key);
    this.shown(card);
  }
}
