// What the last training was worth, as the evaluation's report in the bundle says.

import { el } from "../dom.js";
import { number, percent, t } from "../i18n.js";
import { table } from "./tables.js";

const SLICES = ["all", "warm", "cold"];
const figure = (value) => (typeof value === "number" ? number(value, { maximumFractionDigits: 4 }) : "–");

function withInterval(slice, name) {
  const ends = slice?.ci?.[name];
  return ends ? `${figure(slice[name])} (${figure(ends[0])} – ${figure(ends[1])})` : figure(slice?.[name]);
}

export function evaluation(metrics) {
  // A report has figures by ranker, ours under `model`; without one there are none.
  const model = metrics.model ?? { all: metrics, ...metrics };
  const slices = SLICES.filter((name) => model[name]);
  const names = Object.keys(model.all ?? {}).filter((name) => name.includes("@"));
  if (!names.length) return el("p", { class: "note" }, t("not_evaluated"));
  const rows = names.map((name) => [name, ...slices.map((slice) => withInterval(model[slice], name))]);
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
  const end = (name) => withInterval(spread, name);
  const rows = [
    [t("creators_all"), number(spread.creators)],
    [t("creators_shown"), percent(spread.shown)],
    [t("creators_gini"), end("gini")],
    [t("creators_top"), end("top_1_percent")],
    [t("creators_mismatch"), percent(spread.mismatch)],
  ];
  return table(t("creators_exposure", { k: spread.k }), [t("run_metric"), t("run_value")], rows).element;
}

/** How much worse the worst served group of each column is than the best. */
function gaps(groups) {
  const rows = Object.entries(groups).map(([column, of]) => [
    column,
    typeof of.gap === "number" ? withInterval({ gap: of.gap, ci: { gap: of.ci } }, "gap") : "–",
    of.best ?? "–",
    of.worst ?? "–",
    figure(of.p),
  ]);
  if (!rows.length) return null;
  return table(t("gaps"), [t("gap_column"), t("gap"), t("gap_best"), t("gap_worst"), t("gap_p")], rows).element;
}
