"""The page in a real browser reads what Python reads, label for label."""

import os
import shutil
import threading

import numpy as np
import pytest
import soundfile
import torch

from todm_sb.web.models import find_models
from todm_sb.web.runtime import default_cache, is_whole
from todm_sb.web.server import PageServer

pytest.importorskip("onnxruntime", reason="needs the extra onnx")
webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

from todm_sb.inference.onnx import OnnxASR  # noqa: E402

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
DRIVER = shutil.which("chromedriver")
CACHE = default_cache()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver"),
    pytest.mark.skipif(
        not is_whole(CACHE), reason="needs onnxruntime-web: todm-sb serve fetches it"
    ),
]
RATE = 8000
# In seconds; a browser may share its processor with much else.
PATIENCE = 300


class Page:
    """The page, as a user sees it."""

    def __init__(self, driver, url):
        self.driver = driver
        driver.get(url)
        self.wait()

    def __getitem__(self, name):
        return self.driver.find_element(By.ID, name).get_attribute("textContent")

    def wait(self):
        """For the end of what goes on; returns what is said then."""
        status = self.driver.find_element(By.ID, "status")
        WebDriverWait(self.driver, PATIENCE).until(
            lambda _: status.get_attribute("data-state") != "busy"
        )
        return status.text

    def choose(self, name, text):
        select = Select(self.driver.find_element(By.ID, name))
        option = next(o for o in select.options if o.text.startswith(text))
        select.select_by_visible_text(option.text)
        return self.wait()

    def read(self, path):
        self.driver.find_element(By.ID, "file").send_keys(str(path))
        return self.wait()

    def run(self, script):
        return self.driver.execute_script(f"return {script}")


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    """A recording, at the sampling rate of the networks."""
    t = np.arange(3 * RATE) / RATE
    rng = np.random.default_rng(0)
    tones = np.sin(300 * t * (2 + np.sin(4 * t)))
    path = tmp_path_factory.mktemp("audio") / "tones.wav"
    soundfile.write(path, 0.2 * tones + 0.1 * rng.normal(size=len(t)) * np.sin(9 * t) ** 2, RATE)
    return path


@pytest.fixture(scope="module")
def driver(audio):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new",
        "--disable-dev-shm-usage",
        # Nothing but this machine can be reached.
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={audio}",
    ):
        options.add_argument(argument)
    if os.name == "posix" and os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.set_page_load_timeout(PATIENCE)
    yield driver
    driver.quit()


@pytest.fixture
def page(driver, web_folder):
    with PageServer(find_models(web_folder), CACHE, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Page(driver, server.url)
        server.shutdown()


def python_reads(folder, path):
    samples = torch.from_numpy(soundfile.read(path, dtype="float32", always_2d=True)[0]).mean(1)
    (text,), (tokens,) = OnnxASR(folder).transcribe_batch(samples.unsqueeze(0), torch.ones(1))
    return text, " ".join(map(str, tokens))


def test_each_subnet_reads_a_file_as_python_does(page, web_folder, audio, tmp_path):
    stereo = tmp_path / "stereo.flac"
    left, _ = soundfile.read(audio)
    soundfile.write(stereo, np.stack([left, np.roll(left, 99)], 1), RATE)
    texts = set()
    for name in ("stateless", "lstm"):
        folder = web_folder / name / "float32"
        assert page.choose("model", f"{name}, float32") == "Ready"
        for path in (audio, stereo):
            assert page.read(path) == "Ready"
            text, tokens = python_reads(folder, path)
            assert (page["tokens"], page["text"]) == (tokens, text)
            assert len(tokens.split()) > 3
            texts.add(text)
    assert len(texts) == 4
    # The next subnet reads the same audio without being asked.
    assert page.choose("model", "stateless, float32") == "Ready"
    assert page["text"] == python_reads(web_folder / "stateless" / "float32", stereo)[0]
    # In 8 bits, engines round on their own.
    assert page.choose("model", "lstm, int8") == "Ready"
    assert page["text"]


def test_figures_are_shown(page, audio):
    page.choose("model", "lstm, float32")
    page.read(audio)
    assert page["seconds"] == "3.000 s"
    took = float(page["took"].removesuffix(" s"))
    assert float(page["rtf"]) == pytest.approx(took / 3, abs=1e-3)
    assert 1 < float(page["heap"].removesuffix(" MB")) < 1000
    assert page["about"] == "0.00 M parameters · 4 layers, FFN 12 · 8000 Hz · WER 5.00 %"
    # The browser measures when it likes; a page that is not isolated would be told nothing.
    assert page.run("crossOriginIsolated")
    assert page["memory"] == "measuring" or page["memory"].endswith(" MB")


def test_threads_change_nothing_in_what_is_read(page, web_folder, audio):
    if page.run("navigator.hardwareConcurrency") < 2:
        pytest.skip("needs two cores")
    page.choose("model", "lstm, float32")
    assert page.choose("threads", "2") == "Ready"
    page.read(audio)
    assert page["text"] == python_reads(web_folder / "lstm" / "float32", audio)[0]


def test_what_is_no_audio_is_one_line_and_the_page_goes_on(page, audio, tmp_path):
    bad = tmp_path / "bad.wav"
    bad.write_text("no audio")
    assert page.read(audio) == "Ready"
    text = page["text"]
    assert text
    assert page.read(bad) == "bad.wav cannot be read as audio"
    assert (page["text"], page["seconds"], page["rtf"]) == ("", "", "")
    assert not page.driver.find_element(By.ID, "result").is_displayed()
    assert page.read(audio) == "Ready"
    assert page["text"] == text


def test_the_microphone_is_recorded_until_the_button_is_pressed_again(page):
    button = page.driver.find_element(By.ID, "record")
    button.click()
    WebDriverWait(page.driver, PATIENCE).until(lambda _: button.text == "Stop")
    threading.Event().wait(2)
    button.click()
    WebDriverWait(page.driver, PATIENCE).until(lambda _: page["seconds"] != "")
    assert page.wait() == "Ready"
    assert float(page["seconds"].removesuffix(" s")) > 0.5
    assert page["text"]


def test_all_comes_from_the_server(page, audio):
    page.read(audio)
    names = page.run("performance.getEntriesByType('resource').map(entry => entry.name)")
    origin = page.run("location.origin")
    assert names
    assert all(name.startswith((origin, "data:", "blob:")) for name in names)
    assert not page.driver.get_log("browser")
