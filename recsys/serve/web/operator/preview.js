// Other weights for the re-ranking, tried on a sample of viewers; nobody is served by them.

import * as api from "../api.js";
import { el, outside } from "../dom.js";
import { number, t } from "../i18n.js";
import { titleOf } from "../reason.js";
import { share, table } from "./tables.js";

const MOST = { creator_exposure: 0.4, diversity: 1, new_videos: 0.8 }; // where the curve of the report ends
const AFTER_MS = 300; // of a slider that rests

export function previewing(say) {
  const place = el("div", { class: "sliders" });
  const worth = el("div", { class: "worth", "aria-live": "polite" });
  const shown = el("div", {}, place, worth);
  let [sliders, timer, turn] = [[], null, 0];
  async function look() {
    const mine = ++turn;
    shown.className = "asked";
    const weights = Object.fromEntries(sliders.map(({ name, input }) => [name, Number(input.value)]));
    try {
      const answer = await api.preview(weights);
      const drawn = await drawnOf(answer);
      if (mine !== turn) return;
      if (!sliders.length) begin(answer.weights);
      worth.replaceChildren(...drawn);
      say("");
    } catch (error) {
      if (mine === turn) say(t("failed", { reason: error.message }), true);
    }
  }
  /** The sliders stand at first where they stand for everybody. */
  function begin(weights) {
    sliders = Object.entries(weights).map(([name, weight]) => slider(name, weight));
    place.replaceChildren(...sliders.map(({ element }) => element));
    for (const { input, shown } of sliders)
      input.addEventListener("input", () => {
        shown.textContent = number(Number(input.value));
        clearTimeout(timer);
        timer = setTimeout(look, AFTER_MS);
      });
  }
  const button = el("button", { type: "button", onclick: look }, t("preview_do"));
  return el("section", { class: "panel" }, el("h3", {}, t("preview")), el("p", {}, t("preview_how")), button, shown);
}

function slider(name, weight) {
  const max = Math.max(MOST[name], weight);
  const input = el("input", { id: `weight-${name}`, type: "range", min: 0, max, step: max / 40, value: weight });
  const shown = el("output", { for: input.id }, number(weight));
  return { name, input, shown, element: el("p", {}, el("label", { for: input.id }, t(`weight_${name}`)), input, shown) };
}

async function drawnOf({ num_sampled, page, plain, now, then, changed_places, num_changed, pages, settings }) {
  const figure = (value) => number(value, { maximumFractionDigits: 3 });
  const row = (name, of) => [t(name), ...[plain, now, then].map(of)];
  const figures = [
    row("preview_relevance", (one) => figure(one.relevance)),
    row("preview_creators", (one) => number(one.creators_shown)),
    row("creators_gini", (one) => figure(one.creator_gini)),
    row("preview_categories", (one) => figure(one.categories)),
    row("preview_new", (one) => share(one.new_videos)),
  ];
  const lost = now.relevance ? 1 - then.relevance / now.relevance : 0;
  const titles = new Map((await api.details(pages.flatMap((one) => [...one.now, ...one.then]))).map((video) => [video.video_id, titleOf(video)]));
  const listed = (ids, others) =>
    el("ol", {}, ...ids.map((id) => outside("li", titles.get(id) ?? id, { class: others.includes(id) ? null : "other" })));
  return [
    el("p", {}, t("preview_cost", { lost: share(lost), places: share(changed_places), n: num_changed, of: num_sampled, page })),
    table(t("preview_figures"), [t("run_metric"), t("preview_plain"), t("preview_now"), t("preview_then")], figures).element,
    pages.length
      ? table(t("preview_pages"), [t("viewer"), t("preview_now"), t("preview_then")], pages.map((one) => [one.user_id, listed(one.now, one.then), listed(one.then, one.now)])).element
      : "",
    el("p", {}, t("preview_apply")),
    el("pre", { tabindex: "0" }, el("code", {}, settings)),
  ];
}
