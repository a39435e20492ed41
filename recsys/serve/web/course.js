// A front of courses: the next lesson in order, what to learn after it, and how far one is.

import * as api from "./api.js";
import { el, outside } from "./dom.js";
import { Front } from "./front.js";
import { number, t } from "./i18n.js";
import { titleOf } from "./reason.js";
import { shelf } from "./tile.js";

const FINISHED = 0.8; // of its length, from which on a lesson is finished
const AFTER = 8; // lessons that are proposed
const FEWEST = 1;

export class CourseFront extends Front {
  constructor(context) {
    super(context, { name: "courses", finished: FINISHED });
  }

  acts = ["done"];

  async draw() {
    const { courses } = await api.courses(this.user);
    if (!courses.length) return [el("p", { class: "foot" }, t("no_courses"))];
    const current = courses.find((course) => course.next_video_id);
    const next = current && (await this.#recommended([current.next_video_id]))[0];
    const exclude = next ? [next.id] : [];
    const line = (item) => this.#place(item.details);
    const after = await this.tilesOf({ k: AFTER, exclude }, { line });
    const shown = await Promise.all(courses.map((course) => this.#course(course)));
    return [
      next ? this.#hero(current, next) : el("p", { class: "hero" }, t("courses_done")),
      after.length >= FEWEST ? shelf(t("learn_after"), after) : null,
      el("section", { class: "all-courses" }, el("h2", {}, t("your_courses")), ...shown),
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

  async #course(course) {
    const details = await api.details(course.lessons.map((one) => one.video_id));
    const items = course.lessons.map((lesson, place) => this.#lesson(lesson, details[place], place));
    const list = el("ol", { class: "lessons" }, ...items);
    const head = el("summary", {}, outside("b", course.course), progress(course));
    const begun = course.num_finished > 0 && course.num_finished < course.lessons.length;
    return el("details", { class: "course", open: begun }, head, list);
  }

  #lesson(lesson, details, place) {
    const state = lesson.finished ? "finished" : lesson.locked ? "locked" : "open";
    const title = outside("span", titleOf(details));
    if (lesson.locked && !lesson.finished)
      return el("li", { class: state }, title, el("small", {}, t("lesson_locked")));
    const card = { id: lesson.video_id, item: { ...lesson, details, place } };
    const button = el("button", { type: "button", class: "link" }, title);
    card.open = button;
    button.addEventListener("click", () => this.openPlayer(card, this));
    return el("li", { class: state }, button, el("small", {}, t(`lesson_${state}`)));
  }

  react(card, kind) {
    this.telling.done(card);
    this.said = t("changed_watch", { title: titleOf(card.item.details) });
  }
}

function progress({ num_finished: n, lessons }) {
  const all = lessons.length;
  const text = t("finished_of", { n: number(n), all: number(all) });
  return el("span", { class: "progress" }, el("progress", { max: all, value: n, "aria-label": text }), el("small", {}, text));
}
