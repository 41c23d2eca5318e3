// Calls of the server. Everything is JSON; what is sent again and again is sent until the server has said what it thinks.

const LONGEST_PAUSE_MS = 3000;
const sleeping = new Set(); // who waits to ask again

export class Refused extends Error {
  constructor(status, problem) {
    super(problem);
    this.status = status;
  }
}

// Waits, at most until the server is known to be there again.
function pauseOrConnection(ms) {
  return new Promise((done) => {
    const wake = () => (sleeping.delete(wake), done());
    sleeping.add(wake);
    setTimeout(wake, ms);
  });
}

addEventListener("online", () => sleeping.forEach((wake) => wake()));

export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// Asks once. Raises Refused for what the server refuses, and TypeError where it cannot be reached.
export async function ask(path, message, options = {}) {
  const sent = message === undefined ? {} : {
    method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(message),
  };
  const answer = await fetch(path, {...sent, ...options});
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(answer.status, content.problem || answer.statusText);
  sleeping.forEach((wake) => wake());
  return content;
}

// Asks until the server has answered; a server that is gone, restarts or is busy is asked again.
export async function askUntilAnswered(path, message, onTrouble = () => {}) {
  for (let wait = 200; ; wait = Math.min(2 * wait, LONGEST_PAUSE_MS)) {
    try {
      const answer = await ask(path, message, {signal: AbortSignal.timeout(40000)});
      onTrouble("");
      return answer;
    } catch (error) {
      if (error instanceof Refused && error.status < 500 && error.status !== 429) throw error;
      onTrouble(error instanceof Refused ? error.message : "no connection");
      await pauseOrConnection(wait * (0.5 + Math.random()));
    }
  }
}

export function newKey() {
  return Array.from(crypto.getRandomValues(new Uint32Array(3)), (part) => part.toString(36)).join("");
}

export const percent = (share) => `${(100 * share).toFixed(1)} %`;

// How sure an accuracy is that was measured on few images: its 95 % interval.
export const between = (interval) => interval.map((end) => Math.round(100 * end)).join(" to ") + " %";

// Makes an element; text is never read as markup.
export function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
