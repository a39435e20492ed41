// A front of rows, each with its reason: chosen, because one watched something, new, popular.

import * as api from "./api.js";
import { el } from "./dom.js";
import { Front } from "./front.js";
import { t } from "./i18n.js";
import { titleOf } from "./reason.js";
import { shelf } from "./tile.js";

const PER_ROW = 12;
const FEWEST = 3; // videos that make a row
const LOOKED_AT = 60; // of a list for everybody, of which a viewer may have seen most
const BECAUSE = 2; // rows of this kind

export class Rows extends Front {
  constructor(context) {
    super(context, "rows");
  }

  newcomer = "greeting_rows";

  async draw() {
    this.shown = [];
    const [{ events }, latest, popular] = await Promise.all([
      api.history(this.user, 100),
      api.latest(LOOKED_AT),
      api.popular(LOOKED_AT),
    ]);
    const ids = (answer) => answer.items.map((item) => item.video_id);
    const watched = [...new Set(events.filter((one) => one.positive).map((one) => one.video_id))];
    const chosen = await this.#row(t("row_chosen"));
    const [last, before] = await this.#because(watched.filter(Boolean));
    const fresh = await this.#row(t("row_new"), ids(latest));
    const rows = [chosen, last, fresh, before, await this.#row(t("row_popular"), ids(popular))];
    return rows.some(Boolean) ? rows : [el("p", { class: "foot" }, t("nothing"))];
  }

  /** Rows of what is most like the videos watched last; a row of too few is none. */
  async #because(watched) {
    const rows = [];
    const details = await api.details(watched.slice(0, 6));
    for (const video of details) {
      if (rows.length === BECAUSE) break;
      const near = await api.similar(video.video_id, 2 * PER_ROW, { user_id: this.user });
      const among = near.items.map((item) => item.video_id);
      const row = await this.#row(t("row_because", { title: titleOf(video) }), among);
      if (row) rows.push(row);
    }
    return rows;
  }

  /** A row of videos that no row has yet: some, in their order, or chosen of all. */
  async #row(title, among = null) {
    if (among && !among.length) return null;
    const filters = among && { filters: { video_ids: among } };
    const tiles = await this.tilesOf({ k: PER_ROW, exclude: this.shown, ...filters }, { order: among });
    if (tiles.length < FEWEST) return null;
    this.shown.push(...tiles.map((tile) => tile.id));
    return shelf(title, tiles);
  }
}
