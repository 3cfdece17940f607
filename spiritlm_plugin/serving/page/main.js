// The page: buttons, and what they do.

import { KeyNeeded, keepKey } from "./connection.js";
import { Options } from "./options.js";
import { save } from "./saving.js";
import { Talk } from "./talk.js";
import { setUpTheme } from "./theme.js";

const $ = (id) => document.getElementById(id);
let state = "connecting";
let focused = null; // last, by the user

setUpTheme($("theme"));
$("settings").open = matchMedia("(min-width: 60rem)").matches;

const options = new Options(changeModel);
const talk = new Talk(options, {
  place: $("turns"),
  onState: show,
  onClose: lost,
});

function show(next, turn) {
  state = next;
  const words = {
    idle: "",
    recording: "Recording. Press again to stop.",
    hearing: "The model hears it.",
    working: "One moment.",
    connecting: "Connecting.",
    closed: "There is no connection.",
    answering: turn ? `${turn.title} goes on.` : "",
  };
  $("status").textContent = words[state];
  const idle = state === "idle";
  const recording = state === "recording";
  $("record").disabled = !idle && !recording;
  $("record").setAttribute("aria-pressed", String(recording));
  $("record-label").textContent = recording ? "Stop" : "Record";
  $("cancel").hidden = state !== "answering";
  $("continue").hidden = state === "answering";
  $("continue").disabled = !idle || !talk.hasPrompt;
  $("undo").disabled = $("clear").disabled = !idle || !talk.rounds.length;
  $("save").disabled = !idle || !talk.rounds.length;
  $("file").disabled = $("model").disabled = !idle;
  $("writing").querySelector("button").disabled = !idle;
  $("welcome").hidden = $("turns").children.length > 0;
  // A button that was switched off meanwhile has lost the focus.
  if (document.activeElement === document.body) focused?.focus();
  if (turn) turn.element.scrollIntoView({ block: "nearest" });
}

function complain(error) {
  $("alert").textContent = error?.message ?? "";
  $("alert").hidden = !error;
}

// Does something while nothing else is done.
async function busy(action) {
  if (state !== "idle") return;
  complain(null);
  show("working");
  try {
    await action();
  } catch (error) {
    complain(error);
  }
  show(talk.connections.every(({ isOpen }) => isOpen) ? "idle" : "closed");
}

async function connect() {
  complain(null);
  show("connecting");
  tell("wait", "Connecting");
  $("reconnect").hidden = true;
  try {
    await talk.connect();
  } catch (error) {
    if (error instanceof KeyNeeded) askForKey(error.message);
    else complain(error);
    lost();
    return;
  }
  tell("open", "Connected");
  show("idle");
}

function tell(dot, words) {
  $("connection").dataset.state = dot;
  $("connection").textContent = words;
}

function lost() {
  tell("closed", "Not connected");
  $("reconnect").hidden = false;
  if (state === "idle" || state === "connecting") show("closed");
  talk.stopRecording();
}

function askForKey(message) {
  if (message) $("key-note").textContent = message;
  $("key").showModal();
}

async function changeModel() {
  if (talk.isWith(options.chosen)) return;
  await connect();
  if (talk.rounds.length && state === "idle") {
    $("status").textContent =
      "Begun anew with your turns; answers before are not in the prompt.";
  }
}

// What follows when the user has finished a turn.
function turn(give) {
  return busy(async () => {
    await talk.player.wake();
    await give();
    if (options.atOnce) await talk.answer();
  });
}

function toggleRecording() {
  if (state === "recording") talk.stopRecording();
  else turn(() => talk.record());
}

$("record").addEventListener("click", toggleRecording);
$("continue").addEventListener("click", () => busy(() => talk.answer()));
$("cancel").addEventListener("click", () => talk.cancel());
$("undo").addEventListener("click", () => busy(() => talk.undo()));
$("clear").addEventListener("click", () => busy(() => talk.clear()));
$("save").addEventListener("click", () => save(talk.turns));
$("reconnect").addEventListener("click", connect);

$("writing").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value;
  if (!text.trim()) return;
  turn(async () => {
    await talk.write(text);
    $("text").value = "";
  });
});

$("file").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  target.value = "";
  if (file) turn(() => talk.addFile(file));
});

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keepKey($("key-value").value);
  $("key").close();
  connect();
});

// Text that is dragged goes where it is dropped.
const holdsFiles = ({ dataTransfer }) => dataTransfer.types.includes("Files");

addEventListener("dragover", (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  document.body.classList.add("dropping");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
addEventListener("drop", (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  document.body.classList.remove("dropping");
  const [file] = event.dataTransfer.files;
  if (!file) return;
  if (state === "idle") turn(() => talk.addFile(file));
  else complain(new Error(`${file.name} came too early; drop it once more.`));
});

addEventListener("focusin", ({ target }) => (focused = target));
addEventListener("pointerdown", () => (focused = null));

addEventListener("keydown", (event) => {
  if (event.key === "Escape" && state === "answering") talk.cancel();
});

connect();
