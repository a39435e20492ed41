// Why a video is in a list: one line, and behind it where it comes from and every score.

import * as api from "./api.js";
import { el, outside } from "./dom.js";
import { listed, number, percent, t } from "./i18n.js";

export const titleOf = (video) => video.title || video.video_id || t("untitled");

/** The titles of some videos, as a text names them: “One”, “two” and “three”. */
export const quoted = (videos) => listed(videos.map((video) => t("quoted", { title: titleOf(video) })));

const forEverybody = ({ degraded }) => degraded !== null && degraded.kind !== "stale";

/** What an answer is made from. */
export function greeting(answer, user) {
  if (answer.degraded) return t(forEverybody(answer) ? "degraded_everybody" : "degraded_stale");
  return t(answer.known_user ? "greeting_known" : "greeting_new", { user, n: answer.num_history });
}

/** An answer's items with what people are shown of them, why they are there, and how well they match. */
export async function explained(answer) {
  const named = answer.items.flatMap(({ video_id, reason }) => [video_id, ...reason.video_ids]);
  const titles = new Map((await api.details(named)).map((video) => [video.video_id, video]));
  const { impression_id, version } = answer;
  const ranks = matches(answer);
  return answer.items.map((item, place) => ({
    ...item,
    details: titles.get(item.video_id),
    line: reasonLine(item.reason, titles, 1), // two titles have no room on a card
    whole_line: reasonLine(item.reason, titles),
    match: ranks[place],
    place,
    impression_id,
    version,
  }));
}

/** How well an answer's items match, best by the largest score; one alone, or for everybody, matches nothing. */
function matches(answer) {
  if (forEverybody(answer) || answer.items.length === 1) return answer.items.map(() => null);
  const scores = answer.items.map(({ score }) => score).sort((one, other) => other - one);
  return answer.items.map(({ score }) => ({
    place: number(scores.indexOf(score) + 1),
    of: number(scores.length),
    score: number(score, { maximumFractionDigits: 2 }),
  }));
}

/** One line, which names up to `most` videos; `titles` has the details of all that the reason names. */
function reasonLine(reason, titles, most = Infinity) {
  if (reason.kind === "resembles" && reason.video_ids.length) {
    const named = reason.video_ids.slice(0, most).map((id) => titles.get(id) ?? { video_id: id });
    return t("reason_resembles", { titles: quoted(named) });
  }
  if (reason.kind === "creator") return t("reason_creator", { creator: reason.creator_id });
  return t(`reason_${reason.kind === "resembles" ? "personal" : reason.kind}`);
}

export function whyPanel(item) {
  const rows = [
    [t("why_source"), item.whole_line],
    item.match && [t("why_match"), t("why_match_of", item.match)],
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
    ...rows.filter(Boolean).flatMap(([name, value]) => [el("dt", {}, name), outside("dd", value)]),
  );
}
