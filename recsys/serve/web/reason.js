// Why a video is in a list: one line, and behind it where it comes from and every score.

import { el, outside } from "./dom.js";
import { number, percent, t } from "./i18n.js";

export const titleOf = (video) => video.title || video.video_id || t("untitled");

/** One line; `titles` has the details of the videos that the reason names. */
export function reasonLine(reason, titles) {
  if (reason.kind === "resembles" && reason.video_ids.length) {
    const named = reason.video_ids.map((id) => t("quoted", { title: titleOf(titles.get(id) ?? { video_id: id }) }));
    return t("reason_resembles", { titles: named.join(t("and")) });
  }
  if (reason.kind === "creator") return t("reason_creator", { creator: reason.creator_id });
  return t(`reason_${reason.kind === "resembles" ? "personal" : reason.kind}`);
}

export function whyPanel(item) {
  const rows = [
    [t("why_source"), item.line],
    [t("why_score"), number(item.score, { maximumFractionDigits: 2 })],
    ...Object.entries(item.probabilities).map(([task, chance]) => [
      t("why_chance", { task }),
      percent(chance),
    ]),
    [t("why_place"), number(item.place + 1)],
    [t("why_version"), item.version],
  ];
  return el(
    "dl",
    { class: "facts" },
    ...rows.flatMap(([name, value]) => [el("dt", {}, name), outside("dd", value)]),
  );
}
