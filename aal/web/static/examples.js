// The images of a class that were labelled last; a supervisor may correct each.

import {ask, askUntilAnswered, element} from "/server.js";

const by = (id) => document.getElementById(id);

async function show() {
  try {
    const session = await askUntilAnswered("/api/session");
    const label = Number(location.hash.slice(1)) || 0;
    const {name, ids} = await askUntilAnswered(`/api/examples/${label}`);
    by("name").textContent = name;
    document.title = `Examples: ${name}`;
    by("said").textContent = ids.length ? "" : "No image has this label yet.";
    by("pictures").replaceChildren(...ids.map((id) => {
      const item = element("li");
      item.append(element("img", null, {src: `/image/${id}`, alt: `Image ${id}, labelled ${name}`, loading: "lazy"}));
      if (session.role === "supervisor") item.append(correction(id, label, session.classes));
      return item;
    }));
  } catch (error) {
    by("said").textContent = error.message;
  }
}

// A choice of the right class; the next training uses it.
function correction(id, label, classes) {
  const choice = element("select", null, {"aria-label": `Label of image ${id}`});
  choice.append(...classes.map((name, place) => element("option", name, {value: place})), element("option", "no label", {value: ""}));
  choice.value = label;
  choice.addEventListener("change", async () => {
    const right = choice.value === "" ? null : Number(choice.value);
    try {
      const {taken} = await ask("/api/correct", {id, label: right});
      by("said").textContent = taken ? `Image ${id} is corrected.` : `Image ${id} was labelled from the start; correct its folder.`;
    } catch (error) {
      by("said").textContent = error.message;
    }
  });
  return choice;
}

addEventListener("hashchange", show);
show();
