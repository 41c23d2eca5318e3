// The classes as buttons: a key each, or where they are many a search.

import {element} from "/server.js";

const KEYS = "1234567890abcdefghijklmnopqrstuvwxyz";
const SHOWN = 9; // of many classes, those with a digit each

// The key of each class: that of its name where this is one, as of digits, and of those that are left for the others.
function keysOf(classes) {
  const own = classes.map((name) => (name.length === 1 && KEYS.includes(name.toLowerCase()) ? name.toLowerCase() : null));
  const named = own.map((key, label) => (own.indexOf(key) === label ? key : null));
  const left = [...KEYS].filter((key) => !named.includes(key));
  return named.map((key) => key ?? left.shift());
}

export class Choices {
  constructor(root, classes, onChoose) {
    Object.assign(this, {root, classes, onChoose});
    this.hasSearch = classes.length > KEYS.length;
    this.keys = this.hasSearch ? [] : keysOf(classes);
    this.recent = [];
    this.marked = null;
    if (this.hasSearch) this.addSearch();
    this.shown = [];
    this.show();
  }

  addSearch() {
    this.search = element("input", null, {
      id: "search", type: "search", autocomplete: "off", placeholder: "type a class, Enter takes the first",
      "aria-label": "Search a class; Enter takes the first",
    });
    this.search.addEventListener("input", () => this.show());
    this.root.before(this.search);
    const wrap = element("div", null, {id: "actions"});
    this.search.replaceWith(wrap);
    wrap.append(this.search);
  }

  // Shows the classes that match what is typed: those that begin with it first, without it those used last.
  show() {
    const typed = this.hasSearch ? this.search.value.trim().toLowerCase() : "";
    const rank = (label) => {
      const name = this.classes[label].toLowerCase();
      if (typed) return name.startsWith(typed) ? 0 : 1;
      return this.recent.includes(label) ? this.recent.indexOf(label) : SHOWN;
    };
    const matching = this.classes.map((_, label) => label).filter(
      (label) => !typed || this.classes[label].toLowerCase().includes(typed));
    if (this.hasSearch) matching.sort((one, other) => rank(one) - rank(other) || one - other);
    this.shown = this.hasSearch ? matching.slice(0, SHOWN) : matching;
    this.root.replaceChildren(...this.shown.map((label, place) => this.choice(label, this.keys[label] ?? KEYS[place])));
  }

  choice(label, key) {
    const made = element("div", null, {class: "choice"});
    const button = element("button", null, {
      type: "button", "aria-keyshortcuts": key, "aria-pressed": String(this.marked === label), "data-label": label,
    });
    button.append(element("kbd", key, {"aria-hidden": "true"}), ` ${this.classes[label]}`);
    button.addEventListener("click", () => this.choose(label));
    const link = element("a", "e.g.", {
      href: `/examples#${label}`, target: "_blank", "aria-label": `Examples of ${this.classes[label]}`, title: `examples of ${this.classes[label]}`,
    });
    made.append(button, link);
    return made;
  }

  // Marks a class, as that which was answered before.
  mark(label) {
    this.marked = label;
    this.show();
  }

  choose(label) {
    this.recent = [label, ...this.recent.filter((other) => other !== label)].slice(0, SHOWN);
    this.marked = null;
    if (this.hasSearch) this.search.value = "";
    this.onChoose(label);
    if (this.hasSearch) this.show();
  }

  // Whether a key was a class, or a letter of the search.
  takes(event) {
    if (!this.hasSearch) {
      const label = this.keys.indexOf(event.key.toLowerCase());
      if (label < 0) return false;
      this.choose(label);
      return true;
    }
    if (event.key === "Enter" && this.shown.length && document.activeElement?.tagName !== "BUTTON") {
      if (this.search.value) this.choose(this.shown[0]);
      return true;
    }
    if (event.key >= "1" && event.key <= "9") {
      if (event.key > this.shown.length) return false;
      this.choose(this.shown[Number(event.key) - 1]);
      return true;
    }
    if (event.key.length === 1 && /\p{L}/u.test(event.key)) this.search.focus(); // and the letter is typed there
    return false;
  }
}
