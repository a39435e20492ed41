// The typed API of the server, and the queue of events on their way to it.

import { newId } from "./dom.js";

const TOKEN = "recsys.token";
export const token = {
  get: () => sessionStorage.getItem(TOKEN) ?? "",
  set: (value) => sessionStorage.setItem(TOKEN, value),
};

export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

function headers(body) {
  const given = token.get();
  return {
    ...(body && { "Content-Type": "application/json" }),
    ...(given && { Authorization: `Bearer ${given}` }),
  };
}

async function answer(path, options) {
  const response = await fetch(path, options);
  const text = await response.text();
  if (response.ok) return text;
  let detail = response.statusText;
  try {
    detail = JSON.parse(text).detail ?? detail;
  } catch {} // something between here and the server answered, in words of its own
  throw new Refused(response.status, detail);
}

const get = async (path) => JSON.parse(await answer(path, { headers: headers() }));
const post = async (path, tree, more = {}) => {
  const body = JSON.stringify(tree);
  return JSON.parse(await answer(path, { method: "POST", headers: headers(body), body, ...more }));
};
const query = (values) => new URLSearchParams(values).toString();

export const model = () => get("v1/model");
export const users = () => get("v1/users?limit=200");
export const recommend = (asked) => post("v1/recommend", asked);
export const similar = (video_id, k) => get(`v1/similar?${query({ video_id, k })}`);
export const history = (user_id, limit) => get(`v1/history?${query({ user_id, limit })}`);
export const popular = (k) => get(`v1/popular?${query({ k })}`);
export const latest = (k) => get(`v1/latest?${query({ k })}`);
export const courses = (user_id) => get(`v1/courses?${query({ user_id, limit: 100 })}`);
export const metrics = () => answer("metrics", { headers: headers() });

// What people are shown of videos changes only with the model: each is asked for once.
const known = new Map();

export async function details(ids) {
  const missing = [...new Set(ids)].filter((id) => id && !known.has(id));
  for (let at = 0; at < missing.length; at += 500) {
    const video_ids = missing.slice(at, at + 500);
    const found = await post("v1/details", { video_ids });
    for (const item of found.items) known.set(item.video_id, item);
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
