// One video on its way in: sent, stored, decoded, indexed, first shown; and what it is near to then.

import * as api from "../api.js";
import { el, outside } from "../dom.js";
import { number, spoken, t } from "../i18n.js";
import { row } from "../player.js";
import { titleOf } from "../reason.js";
import { confirmed } from "./confirm.js";

const STEPS = ["stored", "decoded", "indexed", "shown"];
const LOOK_MS = 300;
const TICK_MS = 100;
const NEIGHBOURS = 6;
const VIEWERS = 8; // of the audience that are named

const seconds = (s) => t("seconds", { n: number(s, { minimumFractionDigits: 1, maximumFractionDigits: 1 }) });
const wait = (ms) => new Promise((done) => setTimeout(done, ms));

/** Holds the place of what comes once the video is indexed: the videos below do not move then. */
function expected() {
  const lines = Array.from({ length: NEIGHBOURS }, () => el("li"));
  return el(
    "div",
    { class: "expected", "aria-hidden": "true" },
    el("h4", {}, t("add_near")),
    el("ul", {}, ...lines),
    el("h4", {}, t("add_audience")),
    el("p"),
  );
}

export class Job {
  /** `send(progress, signal)` hands the video in and resolves to what the server says of it. */
  constructor(video_id, title, send) {
    Object.assign(this, { video_id, title, send, at: {}, begun: performance.now() });
    this.giveUp = new AbortController();
    this.bar = el("progress", { max: 1, value: 0, "aria-label": t("add_sending") });
    this.lines = Object.fromEntries(STEPS.map((step) => [step, el("span", { class: "when" }, "–")]));
    this.steps = el("ol", { class: "steps" }, ...STEPS.map((step) => this.#step(step)));
    this.told = el("p", { class: "told", role: "status" });
    this.acts = el("p", { class: "acts" }, el("button", { type: "button", onclick: () => this.cancel() }, t("cancel")));
    this.expected = expected();
    this.around = el("div", { class: "around" }, this.expected);
    const heading = outside("h3", title);
    this.element = el("li", { class: "job" }, heading, this.bar, this.steps, this.told, this.acts, this.around);
    this.timer = setInterval(() => this.#tick(), TICK_MS);
    this.done = this.#run();
  }

  close() {
    this.closed = true;
    clearInterval(this.timer);
  }

  /**
   * Sending ends where the server cannot have all of it yet. Else the server may keep it whether or
   * not its answer is waited for: `#run` waits, and deletes it then. What is stored already is deleted.
   */
  async cancel() {
    this.cancelled = true;
    this.acts.replaceChildren();
    this.told.textContent = t("add_cancelling");
    this.giveUp.abort();
    if (this.at.stored !== undefined) await this.#remove();
  }

  async #remove() {
    try {
      await api.removeVideo(this.video_id);
    } catch (error) {
      return this.#end("wrong", t("failed", { reason: error.message }));
    }
    this.around.replaceChildren();
    this.#end("cancelled", t("add_cancelled"));
  }

  #step(name) {
    return el("li", { "data-step": name }, t(`step_${name}`), " ", this.lines[name]);
  }

  async #run() {
    try {
      let video = await this.send((share) => (this.bar.value = share), this.giveUp.signal);
      if (this.cancelled) return await this.#remove();
      this.bar.classList.add("sent");
      this.#reached("stored");
      while (video.state === "stored" && !this.#over) {
        await wait(LOOK_MS);
        video = await api.video(this.video_id);
      }
      if (!this.#over) await this.#encoded(video);
    } catch (error) {
      // What fails once it is indexed does not take it out again.
      const what = this.at.indexed === undefined ? "add_refused" : "failed";
      if (!this.cancelled) this.#end("wrong", t(what, { reason: error.message }));
      else if (this.at.stored === undefined) this.#end("cancelled", t("add_cancelled"));
    }
  }

  get #over() {
    return this.cancelled || this.closed;
  }

  async #encoded(video) {
    if (video.state === "refused") return this.#end("wrong", t("add_refused", { reason: t(`refused_${video.reason}`) }));
    const since = (ms) => this.at.stored + (ms - video.received_ms) / 1000;
    if (video.decoded_ms) this.#reached("decoded", since(video.decoded_ms));
    else this.lines.decoded.textContent = t("add_not_decoded");
    this.#reached("indexed", since(video.indexed_ms));
    const named = [this.video_id, video.duplicate_of].filter(Boolean);
    const [{ duration_s }, twin] = await api.details(named);
    const near = twin && t("add_duplicate", { title: titleOf(twin), id: twin.video_id });
    if (this.#over) return;
    const length = duration_s && t("add_length", { length: spoken(duration_s) });
    this.told.textContent = [t("add_indexed"), length, near].filter(Boolean).join(" ");
    this.acts.replaceChildren(confirmed(t("take_out"), t("take_out_sure"), () => this.cancel()));
    await this.#look();
    await this.#untilShown(video, since);
  }

  async #look() {
    const near = await api.similar(this.video_id, NEIGHBOURS);
    const videos = await api.details(near.items.map((item) => item.video_id));
    const people = await api.audience(this.video_id);
    const tried = people.viewers.filter((one) => one.reason === "explore").length;
    const named = people.viewers.slice(0, VIEWERS);
    const lines = named.map((one) => el("li", {}, outside("b", one.user_id), ` · ${t("place", { n: one.place + 1 })}`));
    const { num_sampled: of, num_users: all, k } = people;
    this.around.replaceChildren(
      el("h4", {}, t("add_near")),
      el("ul", { class: "near" }, ...videos.map((one) => el("li", {}, row(one, null)))),
      el("h4", {}, t("add_audience")),
      el("p", {}, t("add_audience_of", { n: people.viewers.length, of, all: number(all), k }), " ", tried ? t("add_tried", { n: tried }) : ""),
      el("ul", { class: "people" }, ...lines),
    );
  }

  async #untilShown(video, since) {
    while (!this.#over) {
      const { new_videos } = await api.shownLately();
      const { first_shown_ms = null } = new_videos.find((one) => one.video_id === video.video_id) ?? {};
      if (first_shown_ms !== null) {
        this.#reached("shown", since(first_shown_ms));
        return this.#end("whole", t("add_shown"));
      }
      await wait(LOOK_MS * 5);
    }
  }

  #reached(step, s = (performance.now() - this.begun) / 1000) {
    this.at[step] = Math.max(0, s);
    this.lines[step].textContent = seconds(this.at[step]);
    this.steps.querySelector(`[data-step=${step}]`).classList.add("reached");
  }

  /** The step that is waited for counts on. */
  #tick() {
    const skips = this.at.indexed !== undefined ? ["decoded"] : [];
    const next = STEPS.find((step) => this.at[step] === undefined && !skips.includes(step));
    if (next) this.lines[next].textContent = seconds((performance.now() - this.begun) / 1000);
  }

  #end(state, text) {
    clearInterval(this.timer);
    for (const step of STEPS) if (this.at[step] === undefined) this.lines[step].textContent = "–";
    this.bar.classList.add("sent");
    this.expected.remove();
    this.element.classList.add(state);
    this.told.textContent = text;
    if (state !== "whole") this.acts.replaceChildren();
  }
}
