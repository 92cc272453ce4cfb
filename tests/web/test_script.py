"""The page's script in Node, on elements that only remember: what it shows when things go wrong."""

import json
import shutil
import subprocess

import pytest

from todm_sb.web.server import PAGE

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs node")

# A browser's part: files decode to their text's length in samples unless they are "broken"; a
# subnet reads its own name and that length; workers of the subnet "bad" do not load, and those of
# "weak" load but do not read.
BROWSER = """
class Element extends EventTarget {
  textContent = ""; hidden = true; disabled = true; value = 0; dataset = {}; src = "";
  setAttribute(name, value) { this[name] = value; }
  removeAttribute(name) { this[name] = ""; }
  children = [];
  replaceChildren(...children) { this.children = children; }
  append(...children) { this.children.push(...children); }
  pause() {}
  click() { if (!this.disabled) this.dispatchEvent(new Event("click")); }
}
class Recording extends EventTarget {
  static last;
  state = "inactive";
  constructor(stream) {
    super();
    if (refused === "recorder") throw new Error("not supported");
    this.stream = stream;
    Recording.last = this;
  }
  start() {
    if (refused === "start") throw new Error("not supported");
    this.state = "recording";
  }
  stop() {
    this.state = "inactive";
    const data = new Blob(["spoken!"]);
    setTimeout(() => this.dispatchEvent(Object.assign(new Event("dataavailable"), { data })));
  }
}
const elements = {};
const at = (id) => (elements[id] ??= new Element());
Object.assign(globalThis, {
  document: { getElementById: at, createElement: () => new Element() },
  Option: class {},
  crossOriginIsolated: false,
  OfflineAudioContext: class {
    async decodeAudioData(buffer) {
      if (buffer.byteLength === 6) throw new Error("EncodingError");  // "broken"
      return { length: buffer.byteLength, numberOfChannels: 1,
               getChannelData: () => new Float32Array(buffer.byteLength) };
    }
  },
  Worker: class {
    static alive = 0;
    constructor() { Worker.alive++; }
    terminate() { Worker.alive--; }
    postMessage({ model, samples }) {
      this.model ??= model;
      const { name } = this.model;
      const fails = name === "bad" || (samples && name === "weak");
      const data = fails ? { error: `${name} fails` }
        : !samples ? { took: 1, heap: 1 }
        : { text: `${name} ${samples.length}`, tokens: [1], times: { search: 1 }, heap: 1 };
      setTimeout(() => this.onmessage({ data }));
    }
  },
  MediaRecorder: Recording,
  fetch: async () => ({ ok: MODELS !== null, json: async () => MODELS }),
});
let microphones = 0, refused = "";
async function getUserMedia() {
  await new Promise((resolve) => setTimeout(resolve, 5));
  if (refused === "microphone") throw new Error("denied");
  microphones++;
  return { getTracks: () => [{ stop: () => microphones-- }] };
}
Object.defineProperty(globalThis, "navigator", { value: { mediaDevices: { getUserMedia } } });
URL.createObjectURL = (blob) => `blob:${blob.size}`;
URL.revokeObjectURL = () => {};

async function settled() {
  do await new Promise((resolve) => setTimeout(resolve, 1));
  while (at("status").dataset.state === "busy" && at("status").textContent !== "Recording");
  const { text, seconds, took, rtf, tokens, result, loaded, player, status } = elements;
  return {
    status: status.textContent, state: status.dataset.state,
    text: text?.textContent, hidden: result?.hidden, player: player?.src, loaded: !loaded?.hidden,
    figures: [seconds, took, rtf, tokens].map((element) => element?.textContent),
    on: ["model", "threads", "file", "record"].every((id) => !at(id).disabled),
    workers: Worker.alive, microphones, button: at("record").textContent,
    about: at("about").textContent,
    table: at("subnets").children.map((row) => row.children.map((cell) => cell.textContent)),
    current: at("subnets").children.findIndex((row) => row["aria-current"] === "true"),
  };
}
const seen = [];
await import("./app.js");
seen.push(await settled());
for (const [what, value] of ACTIONS) {
  if (what === "file") {
    const file = Object.assign(new Blob([value]), { name: value });
    at("file").click();
    at("file").files = [file];
    at("file").dispatchEvent(new Event("change"));
  } else if (what === "record") {
    for (let press = 0; press < value; press++) at("record").click();
  } else if (what === "rows") {
    for (const row of value) at("subnets").children[row].dispatchEvent(new Event("click"));
  } else if (what === "unplug") {
    Recording.last.stop();
  } else if (what === "refuse") {
    refused = value;
  } else {
    at(what).value = value;
    at(what).dispatchEvent(new Event("change"));
  }
  seen.push(await settled());
}
console.log(JSON.stringify(seen));
"""
GOOD, OTHER, BAD, WEAK = range(4)
MODELS = [{"name": n, "sample_rate": 4, "bytes": 1} for n in ("good", "other", "bad", "weak")]
NOTHING = {"text": "", "hidden": True, "player": "", "figures": [""] * 4}


@pytest.fixture
def act(tmp_path):
    """Loads the page, does one thing after another, and returns what is shown after each."""
    for path in PAGE.glob("*.js"):
        shutil.copy(path, tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')

    def run(*actions, models=MODELS):
        values = f"const MODELS = {json.dumps(models)}, ACTIONS = {json.dumps(actions)};"
        (tmp_path / "browser.js").write_text(values + BROWSER)
        command = [NODE, "browser.js"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def shows(seen, **expected):
    return {name: seen[name] for name in expected} == expected


def test_each_subnet_is_shown_with_size_and_error_rate(act):
    known = {"cost": {"params": 1.5e6}, "error_rates": {"WER": 2.345}, "description": "layers 3"}
    models = [
        {**MODELS[0], **known, "precision": "float32", "bytes": 5.2e6},
        {**MODELS[0], **known, "precision": "int8", "bytes": 1.5e6},
        {**MODELS[1], "precision": "int8"},
    ]
    models[1]["scored"] = {"utterances": 200, "words": 1474}
    start, small = act(("rows", [1]), models=models)
    assert start["table"] == [
        ["good", "float32", "5.20 MB", "1.50 M", "2.35 %"],
        ["good", "int8", "1.50 MB", "1.50 M", "2.35 % in float32"],
        ["other", "int8", "0.00 MB", "", "not measured"],
    ]
    assert (start["current"], small["current"]) == (0, 1)
    assert start["about"] == "1.50 M parameters · layers 3 · 4 Hz · WER 2.35 %"
    assert small["about"].endswith("WER 2.35 % in float32 of 200 utterances, 1474 words")


def test_a_row_chooses_its_subnet_and_others_wait_until_it_is_loaded(act):
    *_, seen, alone = act(("file", "four"), ("rows", [OTHER, GOOD]), ("rows", [GOOD]))
    assert shows(seen, status="Ready", text="other 4", workers=1, current=OTHER)
    assert shows(alone, status="Ready", text="good 4", workers=1, current=GOOD)


def test_after_a_broken_file_nothing_of_the_one_before_is_left(act):
    start, read, broken, again = act(("file", "four"), ("file", "broken"), ("file", "four"))
    assert shows(start, status="Ready", **NOTHING)
    assert shows(read, status="Ready", text="good 4", hidden=False, player="blob:4")
    assert read["figures"] == ["1.000 s", "1.000 s", "1.0000", "1"]
    assert shows(broken, status="broken cannot be read as audio", state="error", **NOTHING)
    assert broken["on"]
    assert again == read


def test_several_files_in_a_row_each_have_their_own_text(act):
    _, *seen = act(("file", "four"), ("file", "eleven bytes"), ("file", ""), ("file", "a"))
    assert [s["text"] for s in seen] == ["good 4", "good 12", "", "good 1"]
    assert [s["player"] for s in seen] == ["blob:4", "blob:12", "", "blob:1"]
    assert seen[2]["status"] == " holds no audio"


def test_another_subnet_reads_the_same_audio(act):
    *_, seen = act(("file", "four"), ("model", OTHER))
    assert shows(seen, status="Ready", text="other 4", player="blob:4", hidden=False, workers=1)


def test_another_subnet_does_not_read_a_broken_file_nor_the_one_before_it(act):
    *_, seen = act(("file", "four"), ("file", "broken"), ("model", OTHER))
    assert shows(seen, status="Ready", state="", **NOTHING)


def test_a_subnet_that_does_not_load_shows_no_text_or_size_of_another(act):
    *_, bad, unread, back = act(
        ("file", "four"), ("model", BAD), ("file", "four"), ("model", OTHER)
    )
    assert shows(bad, status="bad fails", state="error", loaded=False, workers=0, **NOTHING)
    assert shows(unread, status="No subnet is loaded: choose another", **NOTHING)
    assert shows(back, status="Ready", loaded=True, workers=1)


def test_what_one_subnet_fails_to_read_another_may(act):
    *_, weak, other = act(("model", WEAK), ("file", "four"), ("model", OTHER))
    assert shows(weak, status="weak fails", state="error", loaded=True, **NOTHING)
    assert shows(other, status="Ready", text="other 4")


RECORDING = {"status": "Recording", "microphones": 1, "button": "Stop", "on": False}
READ = {"status": "Ready", "text": "good 7", "microphones": 0, "button": "Record", "on": True}


def test_a_recording_lasts_until_the_button_is_pressed_again(act):
    _, recording, read = act(("record", 1), ("record", 1))
    assert shows(recording, **RECORDING)
    assert shows(read, **READ)


def test_pressed_twice_before_there_is_a_microphone_it_is_asked_for_once(act):
    _, recording, read = act(("record", 2), ("record", 1))
    assert shows(recording, **RECORDING)
    assert shows(read, **READ)


def test_what_was_recorded_before_the_microphone_was_unplugged_is_read(act):
    *_, read = act(("record", 1), ("unplug", 1), ("record", 1))
    assert shows(read, **READ)


def test_a_refused_microphone_is_told(act):
    *_, refused = act(("refuse", "microphone"), ("record", 1))
    expected = {"status": "No microphone: denied", "state": "error", "on": True}
    assert shows(refused, microphones=0, **expected)


@pytest.mark.parametrize("part", ["recorder", "start"])
def test_where_a_browser_does_not_record_the_microphone_is_given_back(act, part):
    *_, refused, _, read = act(("refuse", part), ("record", 1), ("refuse", ""), ("file", "four"))
    status = "This browser does not record: not supported"
    assert shows(refused, status=status, state="error", microphones=0, button="", on=True)
    assert shows(read, status="Ready", text="good 4")


@pytest.mark.parametrize(
    ("models", "message"),
    [([], "There is no subnet here"), (None, "The list of subnets cannot be fetched")],
)
def test_a_page_without_subnets_says_so(act, models, message):
    start, read = act(("file", "four"), models=models)
    assert start["status"].startswith(message)
    assert shows(read, status="No subnet is loaded: choose another", **NOTHING)
