// What the last training was worth, as the evaluation's report in the bundle says.

import { el } from "../dom.js";
import { number, t } from "../i18n.js";
import { share, table, withInterval } from "./tables.js";

const SLICES = ["all", "warm", "cold"];
const figure = (value) => (typeof value === "number" ? number(value, { maximumFractionDigits: 4 }) : "–");
const figureOf = (slice, name, of = figure) => withInterval(slice?.[name], slice?.ci?.[name], of);

export function evaluation(metrics) {
  // A report has figures by ranker, ours under `model`; without one there are none.
  const model = metrics.model ?? { all: metrics, ...metrics };
  const slices = SLICES.filter((name) => model[name]);
  const names = Object.keys(model.all ?? {}).filter((name) => name.includes("@"));
  if (!names.length) return el("p", { class: "note" }, t("not_evaluated"));
  const rows = names.map((name) => [name, ...slices.map((slice) => figureOf(model[slice], name))]);
  return el(
    "section",
    {},
    table(t("run_evaluation"), [t("run_metric"), ...slices.map((name) => t(`slice_${name}`))], rows).element,
    creators(model.creators),
    gaps(model.groups ?? {}),
  );
}

/** How the places of the lists are spread over creators. */
function creators(spread) {
  if (!spread) return null;
  const rows = [
    [t("creators_all"), number(spread.creators)],
    [t("creators_shown"), share(spread.shown)],
    [t("creators_gini"), figureOf(spread, "gini")],
    [t("creators_top"), figureOf(spread, "top_1_percent", share)],
    [t("creators_mismatch"), share(spread.mismatch)],
  ];
  return table(t("creators_exposure", { k: spread.k }), [t("run_metric"), t("run_value")], rows).element;
}

/** How much worse the worst served group of each column is than the best. */
function gaps(groups) {
  const rows = Object.entries(groups).map(([column, of]) => {
    if (of.gap === null) return [column, of.metric, t("gap_none"), "–", "–", "–"];
    const served = (name) => `${name}: ${figure(of.quality[name][of.metric])}`;
    return [column, of.metric, withInterval(of.gap, of.ci, figure), served(of.best), served(of.worst), figure(of.p)];
  });
  if (!rows.length) return null;
  const names = ["gap_column", "run_metric", "gap", "gap_best", "gap_worst", "gap_p"];
  return table(t("gaps"), names.map((name) => t(name)), rows).element;
}
