// What a person has done and the server does not know yet, in order. It outlives the tab: another one sends it then.

import {Refused, ask, askUntilAnswered, newKey} from "/server.js";

const PREFIX = "aal-outbox-";
const DEAD_MS = 150000; // without a sign of life, which a tab in the background gives once a minute
const SIGN_MS = 5000;

export class Outbox {
  // onAnswer is given each act and what the server answered; onRefusal each act and why it was refused.
  constructor(onAnswer, onRefusal, onTrouble) {
    Object.assign(this, {onAnswer, onRefusal, onTrouble});
    this.name = PREFIX + newKey();
    this.acts = leftBehind();
    this.isSending = false;
    setInterval(() => this.keep(), SIGN_MS);
    addEventListener("pagehide", () => this.sendAtOnce());
    this.send();
  }

  add(path, message, about = {}) {
    this.acts.push({path, message, about});
    this.keep();
    this.send();
  }

  keep() {
    try {
      if (this.acts.length) localStorage.setItem(this.name, JSON.stringify({at: Date.now(), acts: this.acts}));
      else localStorage.removeItem(this.name);
    } catch { /* no storage: what is not sent when the tab dies is lost */ }
  }

  // Sends what is left of a tab that is closed; what comes twice counts once. What comes after an undo needs its order.
  sendAtOnce() {
    const undo = this.acts.findIndex((act) => act.path === "/api/undo");
    const free = undo < 0 ? this.acts : this.acts.slice(0, undo);
    for (const {path, message} of free) ask(path, {...message, draw: 0}, {keepalive: true}).catch(() => {});
  }

  async send() {
    if (this.isSending) return;
    this.isSending = true;
    try {
      while (this.acts.length) {
        const act = this.acts[0];
        let answer = null, refusal = null;
        try {
          answer = await askUntilAnswered(act.path, act.message, this.onTrouble);
        } catch (error) {
          refusal = error;
        }
        if (refusal && refusal.status === 401) return this.onRefusal(act, refusal); // kept until there is a link again
        this.acts.shift();
        this.keep();
        if (refusal instanceof Refused) this.onRefusal(act, refusal);
        else if (refusal) throw refusal;
        else this.onAnswer(act, answer);
      }
    } finally {
      this.isSending = false;
    }
  }
}

// Takes over what tabs have left that give no sign of life any more.
function leftBehind() {
  const found = [];
  try {
    for (const name of Object.keys(localStorage).filter((one) => one.startsWith(PREFIX))) {
      const {at, acts} = JSON.parse(localStorage.getItem(name));
      if (Date.now() - at < DEAD_MS) continue;
      localStorage.removeItem(name);
      found.push(...acts.map((act) => ({...act, about: {isOld: true}})));
    }
  } catch { /* no storage, or somebody else's */ }
  return found;
}
