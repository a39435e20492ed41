// Videos are handed in: files that are dropped or chosen, or an address.

import * as api from "../api.js";
import { el, newId } from "../dom.js";
import { t } from "../i18n.js";
import { Job } from "./job.js";

const LONGEST_NAME = 200; // an id has room for a little more

export async function addView({ say }) {
  await api.shownLately(); // asks for the token, if there is to be one, before anything is filled in
  const jobs = [];
  const list = el("ul", { class: "jobs" });
  const fields = { title: field("title"), creator_id: field("creator"), uri: field("address") };
  const files = el("input", { type: "file", id: "add-files", accept: "video/*", multiple: true });
  const zone = el("label", { class: "zone", for: "add-files" }, t("add_drop"), files);
  const button = el("button", { type: "submit" }, t("add_do"));
  const form = el(
    "form",
    { class: "give" },
    zone,
    ...Object.values(fields).map(({ element }) => element),
    button,
  );
  const element = el("section", { class: "add" }, el("h2", {}, t("add_heading")), el("p", {}, t("add_how")), form, list);

  function begin(name, send) {
    const video_id = `${name.slice(0, LONGEST_NAME)}-${newId().slice(0, 6)}`;
    const said = { video_id, title: name, ...values(fields, ["title", "creator_id"]) };
    const job = new Job(video_id, said.title, (...told) => send(said, ...told));
    jobs.push(job);
    list.prepend(job.element);
  }

  function take(given) {
    for (const file of given)
      begin(file.name.replace(/\.[^.]*$/, "") || "video", (said, progress, signal) => api.upload(file, said, progress, signal));
    files.value = "";
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const { uri } = values(fields, ["uri"]);
    if (!uri) return say(t("add_nothing"), true);
    say("");
    const name = uri.split(/[?#]/)[0].split("/").pop().replace(/\.[^.]*$/, "");
    begin(name || "video", (said) => api.addByAddress({ ...said, uri }));
    fields.uri.input.value = "";
  });
  files.addEventListener("change", () => take(files.files));
  dropping(zone, take);
  say("");
  return { element, close: () => jobs.forEach((job) => job.close()) };
}

function field(name) {
  const input = el("input", { id: `add-${name}`, autocomplete: "off", maxlength: name === "address" ? 4096 : 256 });
  return { input, element: el("p", {}, el("label", { for: input.id }, t(`add_${name}`)), input) };
}

/** What was filled in, without what was not. */
const values = (fields, names) =>
  Object.fromEntries(names.map((name) => [name, fields[name].input.value.trim()]).filter(([, value]) => value));

function dropping(zone, take) {
  for (const kind of ["dragover", "dragleave", "drop"])
    zone.addEventListener(kind, (event) => {
      event.preventDefault();
      zone.classList.toggle("over", kind === "dragover");
      if (kind === "drop") take(event.dataTransfer.files);
    });
}
