// The typed API of the server, and the queue of events on their way to it.

import { newId } from "./dom.js";
import { t } from "./i18n.js";

// Tokens stay in this tab: never in an address, never on the disk.
const kept = (name) => ({
  get: () => sessionStorage.getItem(name) ?? "",
  set: (value) => sessionStorage.setItem(name, value),
});
export const token = kept("recsys.token");
export const operatorToken = kept("recsys.operator");

export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

function headers(body, given = token.get()) {
  return {
    ...(body && { "Content-Type": "application/json" }),
    ...(given && { Authorization: `Bearer ${given}` }),
  };
}

async function answer(path, options) {
  const response = await fetch(path, options);
  const text = await response.text();
  if (response.ok) return text;
  throw refused(response.status, text, response.statusText);
}

function refused(status, text, otherwise) {
  try {
    return new Refused(status, JSON.parse(text).detail ?? otherwise);
  } catch {
    return new Refused(status, otherwise); // something between here and the server answered
  }
}

const get = async (path) => JSON.parse(await answer(path, { headers: headers() }));
const post = async (path, tree, more = {}) => {
  const body = JSON.stringify(tree);
  return JSON.parse(await answer(path, { method: "POST", headers: headers(body), body, ...more }));
};

/** For the token of this tab a cookie that opens pictures and clips, whose elements send no token. */
export const mediaPass = async () => token.get() && (await post("v1/media_pass", {}));
setInterval(() => mediaPass().catch(() => {}), 3_600_000); // it is good for some hours; the next look says what is wrong

const query = (values) => new URLSearchParams(values).toString();

export const model = () => get("v1/model");
export const users = () => get("v1/users?limit=200");
export const recommend = (asked) => post("v1/recommend", asked);
/** Videos like one; for a `user_id` without what they may not be shown. */
export const similar = (video_id, k, user) => get(`v1/similar?${query({ video_id, k, ...user })}`);
export const history = (user_id, limit) => get(`v1/history?${query({ user_id, limit })}`);
export const popular = (k) => get(`v1/popular?${query({ k })}`);
export const latest = (k) => get(`v1/latest?${query({ k })}`);
export const courses = (user_id) => get(`v1/courses?${query({ user_id, limit: 100 })}`);

// What only whoever runs the server may do, with a token of its own.
const asOperator = (body) => headers(body, operatorToken.get() || token.get());
const operatorGet = async (path) => JSON.parse(await answer(path, { headers: asOperator() }));

/** Changes something; `tree` is the body. */
export async function change(method, path, tree) {
  const body = tree === undefined ? undefined : JSON.stringify(tree);
  return JSON.parse(await answer(path, { method, headers: asOperator(body), body }));
}

export const shownLately = () => operatorGet("v1/operator/shown");
export const run = (after_ms) => operatorGet(`v1/operator/run?${query({ after_ms })}`);
/** With what came of a trial so far: asked for apart, it may have just been ended by somebody else. */
export const versions = () => operatorGet("v1/versions?compare=true");
export const trace = (user_id) => operatorGet(`v1/operator/trace?${query({ user_id })}`);
export const preview = (weights) => change("POST", "v1/operator/preview", weights);
export const audience = (video_id) => operatorGet(`v1/operator/audience?${query({ video_id })}`);
export const video = (video_id) => operatorGet(`v1/videos/${encodeURIComponent(video_id)}`);
export const removeVideo = (video_id) => change("DELETE", `v1/videos/${encodeURIComponent(video_id)}`);
export const addByAddress = (said) => change("POST", "v1/videos?wait_s=0", said);

/**
 * Sends a file; `progress(share)` is told how much of it is there. Only this way of asking tells.
 * `signal` gives up as long as not all of it was sent.
 */
export function upload(file, said, progress, signal) {
  return new Promise((done, fail) => {
    const request = new XMLHttpRequest();
    request.open("POST", `v1/videos?${query({ ...said, wait_s: 0 })}`);
    for (const [name, value] of Object.entries(asOperator())) request.setRequestHeader(name, value);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.addEventListener("progress", (event) => progress(event.loaded / event.total));
    request.addEventListener("load", () =>
      request.status < 300
        ? done(JSON.parse(request.responseText))
        : fail(refused(request.status, request.responseText, request.statusText)),
    );
    request.addEventListener("error", () => fail(new Refused(0, t("connection_lost"))));
    request.addEventListener("abort", () => fail(new Refused(0, t("given_up"))));
    let whole = false;
    request.upload.addEventListener("load", () => (whole = true));
    signal.addEventListener("abort", () => whole || request.abort());
    request.send(file);
  });
}

// What people are shown of videos changes only with the model: each is asked for once.
const known = new Map();

export async function details(ids) {
  const missing = [...new Set(ids)].filter((id) => id && !known.has(id));
  for (let at = 0; at < missing.length; at += 500) {
    const video_ids = missing.slice(at, at + 500);
    const answer = await post("v1/details", { video_ids });
    for (const item of answer.items) known.set(item.video_id, item);
  }
  return ids.map((id) => known.get(id) ?? { video_id: id });
}

// Each event has an id of its own from the start, so that what is sent again is known.
const waiting = [];
let sending = null;
const AT_ONCE = 500;

export function tell(event) {
  waiting.push({ event_id: newId(), time_ms: Date.now(), ...event });
}

async function send(more) {
  while (waiting.length) {
    const events = waiting.slice(0, AT_ONCE);
    try {
      await post("v1/events", { events }, more);
    } catch (error) {
      // What the server calls wrong will not be right the next time; all else is sent again.
      if (!(error instanceof Refused) || error.status >= 500 || error.status === 401) throw error;
      waiting.splice(0, events.length);
      throw error;
    }
    waiting.splice(0, events.length);
  }
}

/** Sends what waits; resolves once the server has it on disk. */
export async function flush() {
  while (sending) await sending.catch(() => {});
  sending = send();
  try {
    await sending;
  } finally {
    sending = null;
  }
}

/** On leaving: a request that outlives the page, as a beacon does, and takes a token along. */
export function leave() {
  if (!waiting.length) return;
  const body = JSON.stringify({ events: waiting.slice(0, AT_ONCE) });
  fetch("v1/events", { method: "POST", headers: headers(body), body, keepalive: true }).catch(() => {});
}

setInterval(() => waiting.length && flush().catch(() => {}), 2000);
