// A video that plays: its poster until then, and how long it was watched afterwards.

import { calm, el } from "./dom.js";
import { t } from "./i18n.js";

const LEAST_S = 1; // watched for less is no viewing
let current = null; // one plays at a time
let held = null; // what goes on where it stopped, once the page is seen again

/** The picture of a video, or a ground of its own where there is none. */
export function posterOf(video) {
  const frame = el("div", { class: "frame" });
  if (video.poster)
    frame.append(el("img", { src: video.poster, alt: "", decoding: "async", width: 224, height: 224 }));
  return frame;
}

export class Clip {
  /** `watched(seconds, share)`, of its length, is told once after each viewing; `ended` when it ran to its end. */
  constructor(video, { watched, ended = null, controls = false }) {
    Object.assign(this, { video, watched, ended, controls });
    this.frame = posterOf(video);
    this.element = null;
    this.seconds = this.seen = 0;
  }

  play({ muted = true, from = 0, seen = 0, paused = false } = {}) {
    if (current === this) return;
    current?.stop();
    current = this;
    held = null;
    if (!this.video.file) return this.#say(t("no_file"));
    this.#make(muted);
    this.seen = seen; // in seconds, of the same viewing
    if (from) this.element.currentTime = from;
    if (!paused) this.element.play().catch(() => {}); // a browser may want a tap first: the poster stays
  }

  /** What `play` needs to go on from here. */
  get place() {
    if (!this.element) return null;
    const { currentTime: from, muted, paused } = this.element;
    return { from, muted, paused, seen: this.#played };
  }

  get plays() {
    return current === this;
  }

  /** How much of it was played until now, in seconds; what was skipped was not, and a loop is no more of it. */
  get #played() {
    const { duration, played } = this.element;
    let seen = 0; // of its own time: what was played fast, or began before we were told, counts too
    for (let part = 0; part < played.length; part++) seen += played.end(part) - played.start(part);
    seen = this.seen + Math.max(this.seconds, seen);
    return duration > 0 ? Math.min(duration, seen) : seen;
  }

  /** The same as a share of its length; 0 where that is not known. */
  get share() {
    return this.element?.duration > 0 ? this.#played / this.element.duration : 0;
  }

  stop() {
    if (current === this) current = null;
    this.note?.remove();
    if (!this.element) return;
    this.#count();
    const { share, seconds } = this;
    const played = this.#played;
    this.element.removeAttribute("src");
    this.element.load();
    this.element.remove();
    this.element = null;
    if (seconds >= LEAST_S || share >= 0.5) this.watched(played, share);
    this.seconds = 0;
  }

  #make(muted) {
    const { ended, controls } = this;
    this.element = el("video", { src: this.video.file, playsinline: true, controls, loop: !ended });
    if (this.video.captions)
      this.element.append(el("track", { kind: "captions", src: this.video.captions, label: t("captions"), default: true }));
    this.element.muted = muted;
    this.from = null;
    this.element.addEventListener("playing", () => (this.from = performance.now()));
    for (const pause of ["pause", "waiting", "ended"])
      this.element.addEventListener(pause, () => this.#count());
    this.element.addEventListener("error", () => this.#broken());
    if (ended) this.element.addEventListener("ended", ended);
    this.frame.append(this.element);
  }

  #count() {
    if (this.from !== null) this.seconds += (performance.now() - this.from) / 1000;
    this.from = null;
  }

  #broken() {
    if (!this.element?.getAttribute("src")) return; // stopped, not broken
    this.element.remove();
    this.element = null;
    this.#say(t("unplayable"));
  }

  #say(text) {
    this.note = el("p", { class: "note" }, text);
    this.frame.append(this.note);
  }
}

export const stopAll = () => current?.stop();

/** The page is out of sight: what plays is told of, and goes on when it is seen again. */
export function holdAll() {
  const place = current?.place;
  const clip = current;
  stopAll();
  held = place && { clip, place };
}

export function goOn() {
  if (held?.clip.frame.isConnected && !current) held.clip.play(held.place);
  held = null;
}
export const mayAutoplay = () => !calm();
