// The images that this tab has on lease: the one on the screen, and those fetched ahead of it.

import {Refused, ask, askUntilAnswered} from "/server.js";

const WAIT_S = 20;

export class Queue {
  // onNext is called when there is an image to show where there was none.
  constructor(session, onNext, onProgress, onTrouble) {
    Object.assign(this, {onNext, onProgress, onTrouble});
    this.wanted = session.images_ahead + 1;
    this.leaseMs = 1000 * session.lease_s;
    this.items = [];
    this.isFilling = false;
    this.isOver = false;
    this.isClosed = false;
    setInterval(() => this.renew(), Math.max(1000, Math.min(this.leaseMs / 3, 30000)));
    addEventListener("online", () => this.renew());
    addEventListener("visibilitychange", () => document.visibilityState === "visible" && this.renew());
    addEventListener("pagehide", () => this.close());
    addEventListener("pageshow", (event) => event.persisted && this.open());
  }

  get current() {
    return this.items[0];
  }

  // How many queries are missing.
  get room() {
    return Math.max(0, this.wanted - this.items.length);
  }

  add(ids) {
    const wasEmpty = !this.items.length;
    for (const id of ids) if (!this.items.some((item) => item.id === id)) this.items.push({id, image: fetched(id)});
    if (wasEmpty && this.items.length) this.onNext();
  }

  // Puts an image before all others, as undo does.
  putFirst(id) {
    this.items = [{id, image: fetched(id)}, ...this.items.filter((item) => item.id !== id)];
  }

  shift() {
    return this.items.shift();
  }

  drop(ids) {
    const before = this.current;
    this.items = this.items.filter((item) => !ids.includes(item.id));
    if (this.current !== before) this.onNext();
  }

  // Draws until there are as many as wanted; who has none waits for the first.
  async fill() {
    if (this.isFilling || this.isClosed) return;
    this.isFilling = true;
    try {
      while (this.room && !this.isOver && !this.isClosed) {
        const isWaiting = !this.items.length;
        const message = {count: this.room, wait_s: isWaiting ? WAIT_S : 0};
        const answer = await askUntilAnswered("/api/draw", message, this.onTrouble);
        if (this.isClosed && answer.ids.length) give_back(answer.ids);
        else this.add(answer.ids);
        this.note(answer.progress);
        if (!answer.ids.length && (!isWaiting || this.isOver)) break;
      }
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.onTrouble(error.message, error.status);
    } finally {
      this.isFilling = false;
    }
  }

  note(progress) {
    this.isOver = progress.over;
    this.onProgress(progress);
  }

  // Keeps the leases; images that others have got meanwhile, as after the sleep of this machine, are dropped.
  async renew() {
    if (this.isClosed) return;
    const ids = this.items.map((item) => item.id);
    try {
      const answer = await ask("/api/renew", {ids});
      this.drop(ids.filter((id) => !answer.ids.includes(id)));
      this.note(answer.progress);
      this.onTrouble("");
      this.fill();
    } catch (error) {
      if (error instanceof Refused && error.status === 401) this.onTrouble(error.message, 401);
    }
  }

  // Gives everything back, when the tab is closed.
  close() {
    this.isClosed = true;
    if (this.items.length) give_back(this.items.map((item) => item.id));
    this.items = [];
  }

  open() {
    this.isClosed = false;
    this.onNext();
    this.fill();
  }
}

function give_back(ids) {
  navigator.sendBeacon("/api/give_back", new Blob([JSON.stringify({ids})], {type: "application/json"}));
}

// An image element that is decoded before it is shown.
function fetched(id) {
  const image = new Image();
  image.alt = `Image ${id}, to be labelled`;
  image.src = `/image/${id}`;
  image.draggable = false;
  image.decode().catch(() => {});
  return image;
}
