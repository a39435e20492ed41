// A front of courses: the next lesson in order, what to learn after it, and how far one is.

import * as api from "./api.js";
import { el, outside } from "./dom.js";
import { Front } from "./front.js";
import { number, t } from "./i18n.js";
import { quoted, titleOf } from "./reason.js";
import { shelf } from "./tile.js";

const AFTER = 8; // lessons that are proposed
const FEWEST = 1;

export class CourseFront extends Front {
  constructor(context) {
    super(context, "courses");
  }

  lessons = new Map(); // cards by id, a course's in their order
  finished = new Set(); // on this page

  /** Beside a lesson in the player: what it opens and what follows it, then what is like it. */
  beside = { name: "learn_after", of: (video) => this.#learnAfter(video) };

  async draw() {
    const { courses } = await api.courses(this.user);
    if (!courses.length) return [el("p", { class: "foot" }, t("no_courses"))];
    const current = courses.find((course) => course.next_video_id);
    const next = current && (await this.#recommended([current.next_video_id]))[0];
    const exclude = next ? [next.id] : [];
    const line = (item) => this.#place(item.details);
    const after = await this.tilesOf({ k: AFTER, exclude }, { line });
    const cards = await cardsOf(courses);
    this.lessons = new Map(cards.map((card) => [card.id, card]));
    return [
      next ? this.#hero(current, next) : el("p", { class: "hero" }, t("courses_done")),
      after.length >= FEWEST ? shelf(t("learn_after"), after) : null,
      el("section", { class: "all-courses" }, el("h2", {}, t("your_courses")), ...courses.map((course) => this.#course(course))),
    ];
  }

  /** A lesson's own place: its impression, its scores and its reason are those of a request. */
  #recommended(video_ids) {
    return this.tilesOf({ k: 1, filters: { video_ids } });
  }

  #place({ course, lesson }) {
    if (!course) return "";
    return lesson === null ? course : t("lesson_of", { n: number(lesson), course });
  }

  #hero(course, tile) {
    const start = el("button", { type: "submit", class: "start" }, t(course.num_finished ? "go_on" : "begin"));
    start.addEventListener("click", () => tile.open.click());
    const text = el(
      "div",
      {},
      el("p", { class: "reason" }, t("next_lesson")),
      outside("h2", titleOf(tile.item.details)),
      outside("p", this.#place(tile.item.details)),
      progress(course),
      start,
    );
    return el("div", { class: "hero" }, el("ul", {}, tile.element), text);
  }

  #course(course) {
    const items = course.lessons.map(({ video_id }) => this.#lesson(this.lessons.get(video_id)));
    const list = el("ol", { class: "lessons" }, ...items);
    const head = el("summary", {}, outside("b", course.course), progress(course));
    const begun = course.num_finished > 0 && course.num_finished < course.lessons.length;
    return el("details", { class: "course", open: begun }, head, list);
  }

  /** A line of a course. */
  #lesson(card) {
    const { finished, locked, details, needed } = card.item;
    const state = finished ? "finished" : locked ? "locked" : "open";
    const title = outside("span", titleOf(details));
    const told = outside("small", t(`lesson_${state}`, { titles: quoted(needed) }));
    if (state === "locked") return el("li", { class: state }, title, " ", told);
    card.open = el("button", { type: "button", class: "link" }, title);
    card.open.addEventListener("click", () => this.open(card));
    return el("li", { class: state }, card.open, " ", told);
  }

  async #learnAfter(video) {
    const k = Math.min(2 * AFTER, this.model.max_k); // some are finished
    const near = await api.similar(video.video_id, k, { user_id: this.user });
    const after = this.#after(video.video_id).map((card) => card.id);
    const left = near.items.map((item) => item.video_id).filter((id) => !this.#isFinished(id));
    const videos = await api.details([...new Set([...after, ...left])].slice(0, AFTER));
    return videos.map((one) => {
      const card = this.lessons.get(one.video_id);
      return { video: one, card, note: card && this.#waits(card) ? t("lesson_opens") : null };
    });
  }

  /** The lessons that may be begun when one is finished: what follows in its course, what it opens elsewhere. */
  #after(id) {
    const here = this.lessons.get(id)?.item;
    if (!here) return [];
    const ready = [...this.lessons.values()].filter(
      (card) => !this.#isFinished(card.id) && card.item.waits_for.every((one) => one === id || this.finished.has(one)),
    );
    const follows = ({ item }) => item.course === here.course && item.place > here.place;
    const opened = ready.filter((card) => !follows(card) && card.item.waits_for.includes(id));
    return [...ready.filter(follows), ...opened];
  }

  #waits({ item }) {
    return item.waits_for.some((id) => !this.finished.has(id));
  }

  #isFinished(id) {
    return this.finished.has(id) || Boolean(this.lessons.get(id)?.item.finished);
  }

  newcomer = "greeting_learner";

  /** What waits for a lesson follows it only where `share` of it, as it was played, finishes it. */
  next(card, share) {
    const finished = share >= this.telling.finished || this.#isFinished(card.id);
    return this.#after(card.id).find((one) => finished || !this.#waits(one)) ?? null;
  }

  did(card, kind) {
    return kind === "done" && this.#isFinished(card.id);
  }

  watched(card, seconds, share) {
    const finished = super.watched(card, seconds, share);
    if (finished) this.finished.add(card.id);
    return finished;
  }

  react(card, kind) {
    super.react(card, kind);
    this.finished.add(card.id);
  }
}

/** A card for each lesson of some courses, with what is to be finished before it. */
async function cardsOf(courses) {
  const lessons = courses.flatMap(({ course, lessons }) => lessons.map((one, place) => ({ ...one, course, place })));
  const ids = lessons.flatMap((one) => [one.video_id, ...one.waits_for]);
  const videos = new Map((await api.details(ids)).map((video) => [video.video_id, video]));
  return lessons.map((lesson) => {
    const needed = lesson.waits_for.map((id) => videos.get(id));
    return { id: lesson.video_id, item: { ...lesson, details: videos.get(lesson.video_id), needed } };
  });
}

function progress({ num_finished: n, lessons }) {
  const all = lessons.length;
  const text = t("finished_of", { n: number(n), all: number(all) });
  return el("span", { class: "progress" }, el("progress", { max: all, value: n, "aria-label": text }), el("small", {}, text));
}
