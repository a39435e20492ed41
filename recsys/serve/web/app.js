// The page: whose it is, which view is open, in which language.

import * as api from "./api.js";
import { CourseFront } from "./course.js";
import { el, newId } from "./dom.js";
import { Feed } from "./feed.js";
import { Past } from "./history.js";
import { addView } from "./operator/add.js";
import { runView } from "./operator/run.js";
import { choose, LANGUAGES, language, t } from "./i18n.js";
import { openPlayer } from "./player.js";
import { Rows } from "./rows.js";
import { goOn, holdAll, stopAll } from "./video.js";

const at = (id) => document.getElementById(id);
const state = { user: "", users: [], model: null, view: null };
const FRONTS = { feed: Feed, rows: Rows, course: CourseFront };
const VIEWS = {
  watch: async (context) => {
    document.body.dataset.front = context.model.front;
    const front = new FRONTS[context.model.front]({ ...context, open: openPlayer });
    at("main").replaceChildren(front.element);
    await front.start();
    return front;
  },
  history: async (context) => {
    const past = new Past({ ...context, open: openPlayer });
    await past.start();
    return past;
  },
  add: addView,
  run: runView,
};
const ALOFT_MS = 6000; // long enough to be read
let lowered = null;
const OF_OPERATORS = ["add", "run"]; // views that need a token of their own

/** Tells of what came of something: above what is there, and for a while under the header where that is out of sight. */
function say(text, wrong = false) {
  const [said, aloft] = [at("said"), at("aloft")];
  said.textContent = aloft.textContent = text;
  const over = document.querySelector("dialog .told"); // which covers both
  if (over) over.textContent = text;
  for (const one of [said, aloft, over]) one?.classList.toggle("wrong", wrong);
  aloft.hidden = !text || said.getBoundingClientRect().bottom > at("header").getBoundingClientRect().bottom;
  clearTimeout(lowered);
  const lower = () => {
    aloft.hidden = true;
    if (over) over.textContent = "";
  };
  lowered = setTimeout(lower, ALOFT_MS);
}

const viewName = () => (location.hash.slice(1) in VIEWS ? location.hash.slice(1) : "watch");

let turn = 0;

/** Opens the view that the address names; of two that are asked for, the later one counts. */
async function show() {
  const mine = ++turn;
  document.querySelector("dialog")?.close(); // over the view that is left
  stopAll();
  state.view?.close?.();
  state.view = null;
  drawHeader();
  const name = viewName();
  document.body.dataset.view = name;
  at("main").replaceChildren(el("p", { class: "loading" }, t("loading")));
  try {
    if (!state.model) [state.model] = await Promise.all([api.model(), api.mediaPass()]);
    if (!state.user) await chooseSomebody();
    const view = await VIEWS[name]({ user: state.user, model: state.model, say });
    if (mine !== turn) return view.close?.();
    state.view = view;
    if (!view.element.isConnected) at("main").replaceChildren(view.element);
  } catch (error) {
    if (mine === turn) fail(error);
  }
}

function fail(error) {
  const retry = el("button", { type: "button", onclick: show }, t("retry"));
  const operates = OF_OPERATORS.includes(viewName());
  const wants = error.status === 401 || (operates && error.status === 403);
  const given = (operates && api.operatorToken.get()) || api.token.get();
  if (wants && !given) say(""); // nothing went wrong yet: the form says what is asked for
  else say(t("failed", { reason: error.message }), true);
  at("main").replaceChildren(wants ? tokenForm(operates) : retry);
}

function tokenForm(operates) {
  const field = el("input", { type: "password", id: "token", autocomplete: "off", required: true });
  const use = (event) => {
    event.preventDefault();
    (operates ? api.operatorToken : api.token).set(field.value.trim());
    show();
  };
  const label = el("label", { for: "token" }, t("token"));
  const button = el("button", { type: "submit" }, t("token_use"));
  return el("form", { class: "token", onsubmit: use }, el("p", {}, t(operates ? "token_operator" : "token_why")), label, field, button);
}

async function chooseSomebody() {
  const { user_ids } = await api.users();
  state.users = user_ids;
  setUser(new URLSearchParams(location.search).get("user") ?? user_ids[0] ?? `guest-${newId()}`);
  drawHeader();
}

function setUser(user) {
  state.user = user;
  const address = new URL(location.href);
  address.searchParams.set("user", user);
  history.replaceState(null, "", address);
}

/** All of it anew; what has the focus keeps it. */
function drawHeader() {
  const focused = document.activeElement.id;
  choose(language);
  document.title = `${t(viewName())} · recsys`;
  at("views").setAttribute("aria-label", "recsys");
  const link = (name) =>
    el("a", { id: `to-${name}`, href: `#${name}`, "aria-current": name === viewName() ? "page" : null }, t(name));
  at("views").replaceChildren(...Object.keys(VIEWS).map(link));
  const field = el("input", { id: "user", list: "users", autocomplete: "off", spellcheck: "false", maxlength: 256, required: true });
  field.value = state.user;
  field.addEventListener("focus", () => field.select()); // another name takes its place
  const options = el("datalist", { id: "users" }, ...state.users.map((id) => el("option", { value: id })));
  const guest = el("button", { type: "button", id: "new-viewer" }, t("new_viewer"));
  guest.addEventListener("click", () => (setUser(`guest-${newId().slice(0, 8)}`), show()));
  const label = el("label", { for: "user" }, t("viewer"));
  const choice = el("button", { type: "submit", id: "choose-viewer" }, t("choose_viewer"));
  at("viewer").replaceChildren(label, field, options, choice, guest);
  const languages = el("select", { id: "language", "aria-label": t("language") });
  for (const [name, strings] of Object.entries(LANGUAGES))
    languages.append(el("option", { value: name, lang: name, selected: name === language }, strings.name));
  languages.addEventListener("change", () => (choose(languages.value), show()));
  at("tools").replaceChildren(languages);
  if (focused && !document.activeElement.id) at(focused)?.focus({ preventScroll: true });
}

at("viewer").addEventListener("submit", (event) => {
  event.preventDefault();
  setUser(at("user").value); // as it is: spaces may be part of an id
  show();
});
addEventListener("hashchange", show);
addEventListener("pagehide", () => {
  stopAll();
  api.leave();
});
document.addEventListener("visibilitychange", () => (document.hidden ? (holdAll(), api.leave()) : goOn()));
show();
