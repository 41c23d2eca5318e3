// The page where a person labels: an image, a key, the next image.

import {Choices} from "/choices.js";
import {Outbox} from "/outbox.js";
import {Queue} from "/queue.js";
import {Zoom} from "/zoom.js";
import {askUntilAnswered, between, newKey, percent} from "/server.js";

const UNDONE = 100; // answers that can be undone
const MEASURES = 1000;
const by = (id) => document.getElementById(id);
const stage = by("stage"), notice = by("notice");

let session, queue, outbox, choices, zoom;
let done = []; // what was answered here, the last at the end
let mine = null; // labels of this person, of which the server may not know all yet

function say(text) {
  by("said").textContent = text;
}

function showTrouble(problem, status) {
  by("trouble").textContent = problem ? `${problem}; what you do is kept and sent` : "";
  if (status === 401) showNotice("Open the link of your invitation to label.");
}

function showNotice(text) {
  notice.textContent = text;
}

function showProgress(progress) {
  by("labels").textContent = `${progress.labels} of ${progress.budget}`;
  mine ??= progress.mine;
  showMine();
  const {accuracy, next_model: next} = progress;
  by("accuracy").textContent = accuracy ? measuredAs(accuracy, progress.held_out) : "";
  by("next").textContent = nextModel(next, progress);
  if (!queue || queue.current) return;
  if (progress.over) showNotice("Every image has its label. Thank you!");
  else if (progress.paused) showNotice("Labelling is paused; it goes on here by itself.");
  else showNotice("The next image is being chosen ...");
}

function measuredAs(accuracy, heldOut) {
  const kind = accuracy.of === "test" ? "test" : "validation", model = `model ${accuracy.model}`;
  if (!accuracy.interval) return `${kind} accuracy ${percent(accuracy.value)} (${model})`;
  const images = `on ${accuracy.images} ${heldOut ? `of ${heldOut} images set aside` : "images"}`;
  return `${kind} accuracy ${percent(accuracy.value)}, likely ${between(accuracy.interval)} (${model}, ${images})`;
}

function nextModel(next, progress) {
  if (progress.over) return ""; // nobody here waits for it
  if (next.trains_on !== null) {
    const left = next.seconds === null ? "" : `, about ${Math.max(1, Math.round(next.seconds))} s left`;
    return `the next model is in training${left}`;
  }
  return next.labels ? `the next training begins after ${next.labels} more` : "the next training is about to begin";
}

function showMine() {
  by("mine").textContent = mine ? `(your answers: ${mine})` : "";
}

// Shows the first image of the queue; `since` is when the key was pressed that brings it.
function showCurrent(since) {
  zoom.reset();
  const item = queue.current;
  const former = stage.querySelector("img");
  choices.mark(item && item.before !== undefined ? item.before : null);
  if (!item) {
    former?.remove();
    stage.removeAttribute("data-id");
    showNotice("The next image is being chosen ...");
    return;
  }
  showNotice("");
  if (former) former.replaceWith(item.image);
  else stage.append(item.image);
  stage.dataset.id = item.id;
  if (since !== undefined && former) item.image.decode().then(() => measured(since, item), () => {});
}

// How long the eye waited, for whoever measures the page: performance.getEntriesByName("next image").
function measured(since, item) {
  requestAnimationFrame(() => requestAnimationFrame(() => {
    if (queue.current !== item) return;
    performance.measure("next image", {start: since, end: performance.now()});
    if (performance.getEntriesByName("next image").length > MEASURES) performance.clearMeasures("next image");
  }));
}

function leave(path, message, text, label) {
  const since = performance.now();
  const item = queue.shift();
  if (!item) return;
  done.push({id: item.id, label, path});
  done = done.slice(-UNDONE);
  outbox.add(path, {id: item.id, key: newKey(), draw: Math.min(queue.room, 50), ...message});
  mine += label === undefined ? 0 : 1;
  showMine();
  showCurrent(since);
  say(`${text}. ${queue.current ? `Image ${queue.current.id}.` : "Waiting for the next image."}`);
  if (!queue.current) queue.fill();
}

function answer(label) {
  leave("/api/answer", {label}, `Labelled ${session.classes[label]}`, label);
}

function undo() {
  const last = done.pop();
  if (!last) return say("There is nothing to undo.");
  if (last.path === "/api/skip") outbox.add("/api/renew", {ids: [last.id]});
  else outbox.add("/api/undo", {id: last.id, key: newKey()});
  queue.putFirst(last.id);
  queue.current.before = last.label;
  mine -= last.label === undefined ? 0 : 1;
  showMine();
  showCurrent();
  say("Undone. The image before is back.");
}

const acts = {
  undo,
  skip: () => leave("/api/skip", {}, "Skipped"),
  unsure: () => leave("/api/cannot_tell", {}, "Cannot tell"),
  closer: () => zoom.by(1.5),
  whole: () => zoom.reset(),
};
const keys = {
  Backspace: acts.undo, ArrowLeft: acts.undo, ArrowRight: acts.skip, "?": acts.unsure,
  "+": acts.closer, "=": acts.closer, "-": acts.whole,
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const isTyping = event.target.id === "search";
  if (isTyping && event.target.value && ["Backspace", "ArrowLeft", "ArrowRight", "-", "+", "?"].includes(event.key)) return;
  if (isTyping && event.key === "Escape") return event.target.blur();
  if (keys[event.key]) {
    event.preventDefault();
    keys[event.key]();
  } else if (queue.current && choices.takes(event)) event.preventDefault();
}

function onAnswer(act, answer) {
  if (answer.taken === false && !act.about.isOld) say("Somebody else had answered that image before.");
  if (act.path === "/api/undo" && !act.about.isOld && answer.undone[0] !== act.message.id) misfit(act, answer);
  if (act.path === "/api/renew") queue.drop(act.message.ids.filter((id) => !answer.ids.includes(id)));
  else queue.add(answer.ids || []);
  if (answer.progress) queue.note(answer.progress);
  if (queue.room) queue.fill();
}

// What was undone is something else than this page thought, as another one of this person has answered since.
function misfit(act, answer) {
  if (answer.undone.length) queue.putFirst(answer.undone[0]);
  queue.drop([act.message.id]);
  showCurrent();
}

function onRefusal(act, error) {
  if (error.status === 401) showTrouble(error.message, 401);
  else by("trouble").textContent = error.message;
}

async function start() {
  try {
    session = await askUntilAnswered("/api/session", undefined, (problem) => problem && showNotice(problem));
  } catch (error) {
    return showNotice(error.status === 401 ? "Open the link of your invitation to label." : error.message);
  }
  by("name").textContent = session.name;
  by("monitor").hidden = session.role !== "supervisor";
  zoom = new Zoom(stage);
  choices = new Choices(by("choices"), session.classes, (label) => queue.current && answer(label));
  queue = new Queue(session, () => showCurrent(), showProgress, showTrouble);
  outbox = new Outbox(onAnswer, onRefusal, showTrouble);
  for (const [id, act] of Object.entries(acts)) by(id).addEventListener("click", act);
  document.addEventListener("keydown", onKey);
  showProgress(session.progress);
  queue.fill();
}

start();
