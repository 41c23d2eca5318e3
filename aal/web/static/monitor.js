// The page from which a run is watched: figures, curve, people, live.

import {drawCurve} from "/curve.js";
import {Refused, ask, between, element, pause, percent} from "/server.js";

const EVERY_MS = 2000;
const by = (id) => document.getElementById(id);
const seconds = (value) => (value === null ? "-" : `${value.toFixed(value < 10 ? 1 : 0)} s`);

let isPaused = false;

function tile(name, value, more = "") {
  const made = element("div", null, {class: "tile"});
  made.append(element("b", value), element("span", name), element("div", more, {class: "quiet"}));
  return made;
}

function stateOf(status) {
  if (status.finished) return "finished";
  if (status.interrupted) return "stopping";
  return status.paused ? "paused: nobody is given an image" : "running";
}

// On what the newest model was measured, and how sure that is.
function measuredOn(accuracy, heldOut) {
  if (!accuracy) return heldOut ? `${heldOut} of the first images are set aside for testing` : "no model is measured yet";
  if (!accuracy.interval) return `model ${accuracy.model}`;
  const images = heldOut ? `${accuracy.images} of ${heldOut} images set aside` : `${accuracy.images} images`;
  return `likely ${between(accuracy.interval)}: model ${accuracy.model}, on ${images}`;
}

function showTiles({status, accuracy, held_out: heldOut, next_model: next, staleness, waited}) {
  const waits = waited.reduce((sum, row) => sum + row.waited_s, 0), draws = waited.reduce((sum, row) => sum + row.draws, 0);
  const rate = status.labels_per_s === null ? "" : `${Math.round(3600 * status.labels_per_s)} an hour`;
  by("tiles").replaceChildren(
    tile("labels", `${status.labels} / ${status.budget}`, rate),
    tile(accuracy && accuracy.of === "val" ? "validation accuracy" : "test accuracy",
      accuracy ? percent(accuracy.value) : "-", measuredOn(accuracy, heldOut)),
    tile("next model", next.labels === null ? seconds(next.seconds) : `${next.labels} labels`,
      next.labels === null ? `in training, of ${next.trains_on} labels` : "until its training begins"),
    tile("images wait in the queue", status.waiting, `more are being chosen: ${status.computing.selections ? "yes" : "no"}`),
    tile("annotators without an image", status.idle_annotators, draws ? `${seconds(waits / draws)} of waiting for each image` : ""),
    tile("staleness", staleness.mean === null ? "-" : staleness.mean.toFixed(2), "versions that the model was behind which chose the last images"),
  );
}

// What somebody labels an hour, from the answers of the last ten minutes.
function anHour(row, now) {
  if (!row || row.recent < 2) return "-";
  return Math.round(3600 * (row.recent - 1) / Math.max(1, row.last_at - row.first_at));
}

function showPeople({people, annotators, waited, status}) {
  const done = new Map(annotators.map((row) => [row.annotator, row]));
  const waits = new Map(waited.map((row) => [row.annotator, row]));
  const known = new Set(people.map((one) => one.annotator));
  const others = annotators.filter((row) => !known.has(row.annotator)).map(
    (row) => ({annotator: row.annotator, name: `simulated ${row.annotator}`, role: null, link: null, seen_s: null}));
  by("people").replaceChildren(...[...people, ...others].map((one) => {
    const row = element("tr"), mine = done.get(one.annotator), waiting = waits.get(one.annotator);
    const page = one.role === null ? "" : one.seen_s === null ? "not open yet" : one.seen_s < 90 ? "open" : "closed";
    row.append(
      element("th", one.role === "supervisor" && one.name !== one.role ? `${one.name} (supervisor)` : one.name, {scope: "row"}),
      element("td", mine ? mine.labels : 0), element("td", anHour(mine, status.seconds)),
      element("td", waiting ? seconds(waiting.waited_s) : "-"), element("td", page),
      cell(one.link && button("Copy the link", () => copied(one.link))),
      cell(one.link && one.role === "annotator" && button("Shut out", () => shutOut(one.name))),
    );
    return row;
  }));
}

function showAgreement({people, pairs}) {
  const names = new Map(people.map((one) => [one.annotator, one.name]));
  const name = (annotator) => names.get(annotator) || `simulated ${annotator}`;
  by("agreement").hidden = !pairs.length;
  by("pairs").replaceChildren(...pairs.map((pair) => {
    const row = element("tr");
    row.append(element("th", `${name(pair.first)}, ${name(pair.second)}`, {scope: "row"}), element("td", pair.images),
      element("td", percent(pair.same)), element("td", pair.kappa === null ? "-" : pair.kappa.toFixed(2)));
    return row;
  }));
}

function cell(content) {
  const made = element("td");
  if (content) made.append(content);
  return made;
}

function button(text, act) {
  const made = element("button", text, {type: "button"});
  made.addEventListener("click", act);
  return made;
}

async function copied(link) {
  try {
    await navigator.clipboard.writeText(link);
    by("said").textContent = "The link is copied.";
  } catch {
    by("said").textContent = link; // without TLS there is no clipboard
  }
}

async function shutOut(name) {
  if (!confirm(`Shall the link of ${name} no longer work? The labels stay.`)) return;
  await act("/api/shut_out", {name});
}

function showModels(curve) {
  by("models").replaceChildren(...[...curve].reverse().map((model) => {
    const row = element("tr");
    const share = (value) => (value === null ? "-" : percent(value));
    for (const text of [model.version, model.server, model.labels, share(model.test_accuracy), share(model.val_accuracy),
      seconds(model.published_at - model.started_at)]) row.append(element("td", text));
    return row;
  }));
}

function show(found) {
  isPaused = found.status.paused;
  by("run").textContent = found.settings.name;
  by("state").textContent = stateOf(found.status);
  by("pause").textContent = isPaused ? "Go on" : "Pause";
  showTiles(found);
  showPeople(found);
  showAgreement(found);
  showModels(found.curve);
  const kind = found.accuracy && found.accuracy.of === "val" ? "val_accuracy" : "test_accuracy";
  const points = found.curve.filter((model) => model[kind] !== null).map(
    (model) => [model.labels, model[kind], kind === "test_accuracy" ? model.interval : null]);
  drawCurve(by("curve"), points, found.status.labels + found.status.initial);
}

async function act(path, message) {
  try {
    const answer = await ask(path, message);
    await look();
    return answer;
  } catch (error) {
    by("trouble").textContent = error.message;
    return null;
  }
}

async function look() {
  try {
    show(await ask("/api/monitor"));
    by("trouble").textContent = "";
  } catch (error) {
    by("trouble").textContent = error instanceof Refused ? error.message : "no connection; the run has ended, or restarts";
    const isForOthers = error instanceof Refused && error.status === 403;
    for (const part of [document.querySelector("main"), by("pause"), by("stop")]) part.hidden = isForOthers;
  }
}

by("pause").addEventListener("click", () => act("/api/pause", {paused: !isPaused}));
by("stop").addEventListener("click", () => {
  if (confirm("Stop the run? Nothing is lost; --resume goes on with it.")) act("/api/stop", {});
});
by("invite").addEventListener("submit", async (event) => {
  event.preventDefault();
  const made = await act("/api/invite", {name: by("name").value.trim(), role: by("role").value});
  if (made) await copied(made.link);
});

for (;;) {
  await look();
  await pause(document.visibilityState === "visible" ? EVERY_MS : 5 * EVERY_MS);
}
