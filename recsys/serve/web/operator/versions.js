// The versions of the bundle: which serves, which are tried or refused, and changes of that.

import * as api from "../api.js";
import { el, outside } from "../dom.js";
import { ago, number, t } from "../i18n.js";
import { confirmed } from "./confirm.js";
import { table } from "./tables.js";

const MAY_SERVE = ["available", "warm", "challenger"];
const rate = (one) =>
  one ? t("rate", { value: share(one.value), low: share(one.low), high: share(one.high) }) : "–";
const share = (value) => number(value, { style: "percent", maximumFractionDigits: 1 });

export class Versions {
  constructor(say) {
    this.say = say;
    this.list = table(t("versions"), [t("version"), t("state"), t("made"), t("reason"), t("change")], []);
    // It is there without a challenger too, so that nothing moves when one comes.
    this.told = el("summary", {}, t("no_challenger"));
    this.trial = el("div");
    this.beside = el("details", { class: "panel challenger" }, this.told, this.trial);
    this.element = el("section", {}, this.list.element, this.beside);
    this.drawn = "";
  }

  async look() {
    const found = await api.versions();
    const challenger = found.versions.some(({ state }) => state === "challenger") ? await api.challenger() : null;
    const drawn = JSON.stringify([found, challenger]);
    // A question that is being answered, or read, must not be taken away.
    if (drawn === this.drawn || this.element.querySelector(".confirm .yes")) return;
    this.drawn = drawn;
    this.list.fill(found.versions.map((one) => this.#row(one, found)));
    this.told.textContent = challenger ? this.#summary(challenger) : t("no_challenger");
    this.trial.replaceChildren(...(challenger ? this.#challenger(challenger) : []));
  }

  #row({ version, state, created, reason }, { wanted, serving }) {
    const made = created ?? madeAt(version);
    const coming = version === wanted && version !== serving ? ` ${t("wanted")}` : "";
    const acts = [];
    if (MAY_SERVE.includes(state) && version !== wanted)
      acts.push(this.#act(t("activate"), t("activate_sure"), "POST", `versions/${encodeURIComponent(version)}/activate`));
    if (state === "serving" && version === wanted)
      acts.push(this.#act(t("roll_back"), t("roll_back_sure"), "POST", `versions/rollback?from=${encodeURIComponent(version)}`));
    return [version, t(`state_${state}`) + coming, made ? ago(Date.parse(made)) : "–", reason ?? "", el("span", { class: "acts" }, ...acts)];
  }

  #summary({ share: part, since_ms, challenger, champion }) {
    const rates = [challenger, champion].map((one) => (one.rate ? share(one.rate.value) : "–"));
    return t("challenger_told", { share: share(part), since: ago(since_ms), rate: rates[0], other: rates[1] });
  }

  #challenger({ challenger, champion, difference, sample_ratio_p, warning }) {
    const arm = (one) => [one.version, number(one.users), number(one.impressions), number(one.clicks), rate(one.rate)];
    const names = [t("version"), t("users"), t("impressions"), t("clicks"), t("click_rate")];
    const p = sample_ratio_p === null ? "–" : number(sample_ratio_p, { maximumSignificantDigits: 2 });
    return [
      table(t("challenger_arms"), names, [arm(challenger), arm(champion)]).element,
      el("p", {}, t("challenger_difference", { rate: rate(difference) })),
      el("p", { class: warning ? "wrong" : null }, t("sample_ratio", { p }), warning ? ` ${t("sample_ratio_wrong")}` : ""),
      this.#act(t("end_challenge"), t("end_challenge_sure"), "DELETE", "challenger"),
    ];
  }

  #act(name, question, method, path) {
    return confirmed(name, question, async () => {
      try {
        const { wanted } = await api.change(method, `v1/${path}`);
        this.say(t("changed_versions", { version: wanted }));
        await this.look();
      } catch (error) {
        this.say(t("failed", { reason: error.message }), true);
      }
    });
  }
}

/** A version's name begins with when it was made: 20260101T000000000000Z. */
function madeAt(version) {
  const found = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)/.exec(version);
  return found && `${found[1]}-${found[2]}-${found[3]}T${found[4]}:${found[5]}:${found[6]}Z`;
}
