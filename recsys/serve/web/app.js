// The page of the endpoint: choose a user, see what they watched and what is recommended.

const element = (id) => document.getElementById(id);
const known = [];

async function call(path, body) {
  const options = body && {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  };
  const response = await fetch(path, options);
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail ?? response.statusText);
  return answer;
}

// Clips play while they are on the screen, and only then.
const onScreen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) target.play().catch(() => {});
    else target.pause();
  }
});

function frameOf(videoId) {
  const frame = document.createElement("div");
  frame.className = "frame";
  const missing = document.createElement("span");
  missing.textContent = "no file to show";
  if (videoId === null) {
    frame.append(missing);
    return frame;
  }
  const video = document.createElement("video");
  Object.assign(video, { muted: true, loop: true, controls: true, playsInline: true });
  video.preload = "metadata";
  video.src = `v1/videos/${encodeURIComponent(videoId)}/file`;
  video.addEventListener("error", () => video.replaceWith(missing));
  onScreen.observe(video);
  frame.append(video);
  return frame;
}

function card(videoId, facts) {
  const figure = document.createElement("figure");
  figure.className = "card";
  const caption = document.createElement("figcaption");
  const title = document.createElement("b");
  title.textContent = videoId ?? "unknown video";
  const details = document.createElement("span");
  details.textContent = facts;
  caption.append(title, details);
  figure.append(frameOf(videoId), caption);
  return figure;
}

function pastCard(event) {
  const did = Object.keys(event.labels).filter((name) => event.labels[name]);
  if (!event.positive && !did.length) did.push("passed over");
  const when = new Date(event.time_ms).toISOString().slice(0, 16).replace("T", " ");
  const past = card(event.video_id, [when, ...did].join(" · "));
  past.classList.toggle("passed", !event.positive);
  return past;
}

function nextCard(video) {
  const chances = Object.entries(video.probabilities).map(
    ([task, p]) => `${task} ${(100 * p).toFixed(0)} %`,
  );
  return card(video.video_id, [`score ${video.score.toFixed(2)}`, ...chances].join(" · "));
}

function show(place, cards, nothing) {
  onScreen.disconnect();
  place.replaceChildren(...cards);
  if (!cards.length) place.textContent = nothing;
  document.querySelectorAll("video").forEach((video) => onScreen.observe(video));
}

function say(text, wrong = false) {
  element("message").textContent = text;
  element("message").classList.toggle("wrong", wrong);
}

async function recommend() {
  const userId = element("user").value; // as it is: spaces may be part of an id
  if (!userId) return;
  try {
    const past = await call(`v1/history?user_id=${encodeURIComponent(userId)}&limit=12`);
    const asked = { user_id: userId, k: Number(element("count").value) };
    // A replayed history ended long ago: ask as of one minute after its last event.
    if (past.events.length) asked.now_ms = past.events[0].time_ms + 60_000;
    const next = await call("v1/recommend", asked);
    show(element("recent"), past.events.map(pastCard), "nothing yet");
    show(element("recommended"), next.items.map(nextCard), "nothing is left to recommend");
    say(
      next.known_user
        ? `User ${userId}: from ${next.num_history} ${next.num_history === 1 ? "event" : "events"}`
        : `User ${userId} is not known: this is what everybody new gets`,
    );
  } catch (error) {
    say(error.message, true);
  }
}

function another() {
  if (!known.length) return;
  element("user").value = known[Math.floor(Math.random() * known.length)];
  recommend();
}

async function start() {
  const model = await call("v1/model");
  element("model").textContent =
    `${model.num_videos} videos · ${model.num_users} users · bundle ${model.version}`;
  element("count").max = model.max_k;
  element("count").value = Math.min(12, model.max_k);
  known.push(...(await call("v1/users?limit=200")).user_ids);
  for (const id of known) element("users").append(new Option(id, id));
  element("user").value = new URLSearchParams(location.search).get("user") ?? known[0] ?? "";
  await recommend();
}

element("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  recommend();
});
element("another").addEventListener("click", another);
start().catch((error) => say(error.message, true));
