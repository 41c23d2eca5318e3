// Takes the secret of an invitation out of the address, where no server and no log sees it, and asks to be let in.

import {askUntilAnswered} from "/server.js";

const said = document.getElementById("said");
const token = location.hash.slice(1);
history.replaceState(null, "", "/join");

try {
  await askUntilAnswered("/api/join", {token}, (problem) => (said.textContent = problem || "One moment ..."));
  location.replace("/");
} catch (error) {
  said.textContent = `You cannot be let in: ${error.message}.`;
}
