// What the page says, in the language that was chosen: one file of strings a language.

import en from "./strings/en.js";
import zh from "./strings/zh.js";

export const LANGUAGES = { en, zh };
const KEY = "recsys.language";

function preferred() {
  const asked = new URLSearchParams(location.search).get("lang") ?? localStorage.getItem(KEY);
  const wanted = [asked, ...navigator.languages].filter(Boolean).map((name) => name.slice(0, 2));
  return wanted.find((name) => name in LANGUAGES) ?? "en";
}

export let language = preferred();

export function choose(name) {
  language = name;
  localStorage.setItem(KEY, name);
  document.documentElement.lang = name;
}

const RIGHT_TO_LEFT = /[\u0590-\u08ff\u200f\u202a-\u202e\u2066-\u2069\ufb1d-\ufdff\ufe70-\ufeff\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;

/** What comes from outside, kept apart where it is written from right to left: else it draws numbers beside it in. */
function isolated(value) {
  const text = String(value);
  return RIGHT_TO_LEFT.test(text) ? `\u2068${text.replace(/[\u2066-\u2069]/g, "")}\u2069` : text;
}

/** A text by its name; `{place}`s are filled, and a function tells one thing from many. */
export function t(name, values = {}) {
  const text = LANGUAGES[language][name];
  const filled = typeof text === "function" ? text(values) : text;
  return filled.replace(/\{(\w+)\}/g, (_, key) => isolated(values[key]));
}

/** Some texts as one: "one, two and three". */
export const listed = (texts) => new Intl.ListFormat(language).format(texts);

export const number = (value, options) => new Intl.NumberFormat(language, options).format(value);
export const percent = (share, digits = 0) => number(share, { style: "percent", maximumFractionDigits: digits });

export function clock(seconds) {
  const whole = Math.max(1, Math.round(seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/** A length as it is read aloud: "1 minute 5 seconds". */
export function spoken(seconds) {
  const whole = Math.max(1, Math.round(seconds));
  const unit = (value, name) => number(value, { style: "unit", unit: name, unitDisplay: "long" });
  const minutes = Math.floor(whole / 60);
  return [minutes && unit(minutes, "minute"), whole % 60 && unit(whole % 60, "second")]
    .filter(Boolean)
    .join(" ");
}

export const moment = (time) =>
  new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" }).format(time);

const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];

/** How long ago a time was: "2 hours ago". */
export function ago(time) {
  const seconds = Math.round((Date.now() - time) / 1000);
  const [unit, length] = UNITS.find(([, length]) => Math.abs(seconds) >= length) ?? UNITS.at(-1);
  const format = new Intl.RelativeTimeFormat(language, { numeric: "auto" });
  return format.format(-Math.trunc(seconds / length), unit);
}
