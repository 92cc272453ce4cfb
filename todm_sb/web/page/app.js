// The page: choose a subnet, give it audio, see what it hears and what that costs.

import { decode } from "./audio.js";
import { columns, describe, megabytes, seconds, shares, title } from "./figures.js";
import { measurePage } from "./memory.js";
import { Recorder } from "./recorder.js";
import { Recognizer } from "./recognizer.js";

const at = (id) => document.getElementById(id);
const recorder = new Recorder();
let models = [];
let recognizer = null;
let last = null; // the audio that the next subnet is to transcribe, and its name

function say(text, state = "") {
  at("status").textContent = text;
  at("status").dataset.state = state;
}

// One thing at a time: while `work` goes on, the controls are off; what goes wrong is one line.
async function busy(text, work) {
  enable(false, "model", "threads", "file", "record");
  say(text, "busy");
  try {
    await work();
    say("Ready");
  } catch (error) {
    say(error.message, "error");
  }
  enable(true, "model", "threads", "file", "record");
}

function enable(on, ...controls) {
  controls.forEach((id) => (at(id).disabled = !on));
}

function show(values) {
  for (const [id, text] of Object.entries(values)) at(id).textContent = text;
}

// What was transcribed before must not pass for what is asked now, whatever becomes of that.
function forget() {
  at("result").hidden = true;
  show({ text: "", tokens: "", parts: "", seconds: "", took: "", rtf: "" });
  const player = at("player");
  player.pause();
  URL.revokeObjectURL(player.src);
  player.removeAttribute("src");
}

const chosen = () => models[at("model").value];

async function load() {
  forget();
  at("loaded").hidden = true;
  recognizer?.close();
  recognizer = null;
  const model = chosen();
  show({ about: describe(model) });
  for (const [i, row] of [...at("subnets").children].entries()) {
    row.setAttribute("aria-current", String(models[i] === model));
  }
  // A new worker for each: what the last one held is given back.
  const next = new Recognizer(model, Number(at("threads").value));
  const { took, heap } = await next.ready.catch((error) => {
    next.close();
    throw error;
  });
  recognizer = next;
  show({ size: megabytes(model.bytes), loading: seconds(took), heap: megabytes(heap) });
  at("loaded").hidden = false;
  showPageMemory();
}

// A row of the table, which chooses its subnet when it is clicked.
function rowOf(model, i) {
  const row = document.createElement("tr");
  const cell = (textContent) => Object.assign(document.createElement("td"), { textContent });
  row.append(...columns(model).map(cell));
  row.addEventListener("click", () => {
    if (at("model").disabled) return;
    at("model").value = i;
    busy("Loading the subnet", change);
  });
  return row;
}

// Another subnet transcribes the same audio: that is how they are compared.
async function change() {
  await load();
  if (last) await transcribe(...last);
}

async function transcribe(blob, name) {
  forget();
  last = null;
  if (!recognizer) throw new Error("No subnet is loaded: choose another");
  const rate = chosen().sample_rate;
  const samples = await decode(blob, rate, name);
  last = [blob, name];
  const duration = samples.length / rate;
  const { text, tokens, times, heap } = await recognizer.transcribe(samples);
  const took = Object.values(times).reduce((sum, time) => sum + time, 0);
  at("player").src = URL.createObjectURL(blob);
  show({
    text,
    tokens: tokens.join(" "),
    parts: shares(times),
    seconds: seconds(duration),
    took: seconds(took),
    rtf: (took / duration).toFixed(4),
    heap: megabytes(heap),
  });
  at("result").hidden = false;
  showPageMemory();
}

// Takes as long as the browser likes: the page does not wait for it.
async function showPageMemory() {
  const asked = recognizer;
  show({ memory: "measuring" });
  const bytes = await measurePage();
  if (asked === recognizer) show({ memory: bytes === null ? "not told here" : megabytes(bytes) });
}

function press(on) {
  at("record").textContent = on ? "Stop" : "Record";
  at("record").setAttribute("aria-pressed", String(on));
}

async function record() {
  if (recorder.active) {
    press(false);
    await busy("Transcribing", async () => transcribe(await recorder.stop(), "the recording"));
    return;
  }
  await busy("Waiting for the microphone", () => recorder.start());
  if (!recorder.active) return;
  press(true);
  enable(false, "model", "threads", "file");
  say("Recording", "busy");
}

async function start() {
  const response = await fetch("models.json");
  if (!response.ok) throw new Error("The list of subnets cannot be fetched: load the page again");
  models = await response.json();
  if (models.length === 0) throw new Error("There is no subnet here");
  at("model").replaceChildren(...models.map((model, i) => new Option(title(model), i)));
  at("subnets").replaceChildren(...models.map(rowOf));
  // Without isolation from other origins there is no memory that threads could share.
  const most = crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, 8) : 1;
  at("threads").replaceChildren(...Array.from({ length: most }, (_, i) => new Option(i + 1)));
  await load();
}

at("model").addEventListener("change", () => busy("Loading the subnet", change));
at("threads").addEventListener("change", () => busy("Loading the subnet", change));
at("record").addEventListener("click", record);
// The same file may be chosen again, for it may have been mended.
at("file").addEventListener("click", ({ target }) => (target.value = ""));
at("file").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  if (file) busy(`Transcribing ${file.name}`, () => transcribe(file, file.name));
});
busy("Loading the subnet", start);
