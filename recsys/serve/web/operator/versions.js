// The versions of the bundle: which serves, which are tried or refused, and changes of that.

import * as api from "../api.js";
import { el, outside } from "../dom.js";
import { ago, number, t } from "../i18n.js";
import { confirmed } from "./confirm.js";
import { share, table, withInterval } from "./tables.js";

const MAY_SERVE = ["available", "warm", "challenger"];
const MAY_BE_TRIED = ["available", "warm"]; // one at a time: the trial that runs is ended first
const USUAL_SHARE = 10; // % of the viewers
const rate = (one) => (one ? withInterval(one.value, [one.low, one.high]) : "–");

export class Versions {
  constructor(say) {
    this.say = say;
    this.list = table(t("versions"), [t("version"), t("state"), t("made"), t("reason"), t("change")], []);
    // It is there without a challenger too, so that nothing moves when one comes.
    this.told = el("summary", {}, t("no_challenger"));
    this.trial = el("div");
    this.beside = el("details", { class: "panel challenger", ontoggle: () => this.#tidy() }, this.told, this.trial);
    this.element = el("section", { class: "versions" }, this.list.element, this.beside);
    this.drawn = "";
    this.tried = false;
    this.turn = Promise.resolve();
  }

  look() {
    return this.#inTurn(() => this.#look());
  }

  /** Looks and changes come one after another: a look asks for no trial that a change has just ended. */
  #inTurn(act) {
    this.turn = this.turn.then(act, act);
    return this.turn;
  }

  async #look() {
    const now = await api.versions();
    const challenger = now.comparison;
    const drawn = JSON.stringify(now);
    // A question that is being answered, or read, must not be taken away.
    if (drawn === this.drawn || this.element.querySelector(".confirm .yes")) return;
    this.drawn = drawn;
    this.list.fill(now.versions.map((one) => this.#row(one, now)));
    this.tried = challenger !== null;
    if (this.tried) this.trial.replaceChildren(...this.#challenger(challenger));
    this.#tidy();
    this.told.textContent = challenger ? this.#summary(challenger) : t("no_challenger");
  }

  /** Last figures of a trial that is over stay where they are read until that is closed: nothing moves by itself. */
  #tidy() {
    if (this.tried) return;
    if (!this.beside.open) this.trial.replaceChildren();
    for (const button of this.trial.querySelectorAll("button")) button.disabled = true;
  }

  #row({ version, state, created, reason }, { wanted, serving, challenger, versions }) {
    const made = created ?? madeAt(version);
    const coming = version === wanted && version !== serving ? ` ${t("wanted")}` : "";
    const path = `versions/${encodeURIComponent(version)}`;
    const acts = [];
    if (MAY_SERVE.includes(state) && version !== wanted)
      acts.push(this.#swap(t("activate"), t("activate_sure"), `${path}/activate`));
    if (MAY_BE_TRIED.includes(state) && version !== wanted && !challenger)
      acts.push(this.#challenge(version, `${path}/challenge`));
    if (state === "serving" && version === wanted && versions.length > 1)
      acts.push(this.#swap(t("roll_back"), t("roll_back_sure"), `versions/rollback?from=${encodeURIComponent(version)}`));
    return [version, t(`state_${state}`) + coming, made ? ago(Date.parse(made)) : "–", reason ?? "", el("span", { class: "acts" }, ...acts)];
  }

  #summary({ share: part, since_ms, challenger, champion }) {
    const [tried, other] = [challenger, champion].map((one) => rate(one.rate));
    return t("challenger_told", { share: share(part), since: ago(since_ms), rate: tried, other });
  }

  #challenger({ challenger, champion, difference, sample_ratio_p, warning, counted_share }) {
    const arm = (one) => [one.version, number(one.users), number(one.impressions), number(one.clicks), rate(one.rate)];
    const names = [t("version"), t("users"), t("impressions"), t("clicks"), t("click_rate")];
    const p = sample_ratio_p === null ? "–" : number(sample_ratio_p, { maximumSignificantDigits: 2 });
    return [
      table(t("challenger_arms"), names, [arm(challenger), arm(champion)]).element,
      el("p", {}, t("challenger_difference", { rate: rate(difference) })),
      el("p", { class: warning ? "wrong" : null }, t("sample_ratio", { p }), warning ? ` ${t("sample_ratio_wrong")}` : ""),
      counted_share < 1 ? el("p", {}, t("counted_share", { share: share(counted_share) })) : "",
      this.#act(t("end_challenge"), t("end_challenge_sure"), async () => {
        const { wanted } = await api.change("DELETE", "v1/challenger");
        return t("challenge_ended", { version: wanted });
      }),
    ];
  }

  /** Another version for everybody. */
  #swap(name, question, path) {
    return this.#act(name, question, async () => {
      const { wanted } = await api.change("POST", `v1/${path}`);
      return t("changed_versions", { version: wanted });
    });
  }

  /** A version for a share of the viewers, which is asked for. */
  #challenge(version, path) {
    const field = el("input", { type: "number", min: 1, max: 99, required: true, value: USUAL_SHARE });
    return this.#act(t("challenge"), el("label", {}, t("challenge_share"), field), async () => {
      const answer = await api.change("POST", `v1/${path}`, { share: field.valueAsNumber / 100 });
      return t("challenge_begun", { version, share: share(answer.share) });
    });
  }

  /** A button for a change, which resolves to what there is to say of it. */
  #act(name, question, change) {
    return confirmed(name, question, async () => {
      try {
        this.say(await this.#inTurn(change));
        await this.look();
      } catch (error) {
        this.say(t("failed", { reason: error.message }), true);
      }
    });
  }
}

/** A version's name begins with when it was made: 20260101T000000000000Z. */
function madeAt(version) {
  const made = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)/.exec(version);
  return made && `${made[1]}-${made[2]}-${made[3]}T${made[4]}:${made[5]}:${made[6]}Z`;
}
