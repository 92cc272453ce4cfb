import os
import shutil
import socket
from pathlib import Path

import pytest

from todm_sb.bundle.bundle import read_bundle
from todm_sb.utils.errors import ConfigError
from todm_sb.utils.hub import BUNDLE_FILES, is_of_hub, model_folder


@pytest.fixture
def model(tmp_path):
    """Writes a folder of a few small files."""

    def write(name="model", **contents):
        folder = tmp_path / "pushed" / name
        folder.mkdir(parents=True)
        for file in (*BUNDLE_FILES, "README.md", "evil.py"):
            (folder / file).write_text(contents.get(file.partition(".")[0], f"{file} of {name}"))
        return folder

    return write


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """No folder here has the name of a model."""
    monkeypatch.chdir(tmp_path)


def refusal(place, **options):
    with pytest.raises(ConfigError) as caught:
        model_folder(place, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def texts(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_what_is_asked_for_is_fetched_once_and_nothing_else(hub, model, tmp_path, capfd):
    folder, commit = model(), None
    commit = hub.push("org/model", folder)
    for _ in range(2):
        found = model_folder("org/model", BUNDLE_FILES)
        assert found.name == commit
        assert texts(found) == {name: (folder / name).read_text() for name in BUNDLE_FILES}
    assert sorted(hub.fetched()) == sorted(BUNDLE_FILES)
    assert found.is_relative_to(tmp_path / "hub")
    assert capfd.readouterr().err == ""


def test_a_new_commit_is_noticed_and_an_old_revision_stays(hub, model):
    first = hub.push("org/model", model("a"))
    hub.commits["org/model"]["v1"] = first
    second = hub.push("org/model", model("b"))
    assert first != second
    assert model_folder("org/model").name == second
    for options in ({"place": "org/model@v1"}, {"place": "org/model", "revision": "v1"}):
        found = model_folder(**options)
        assert found.name == first
        assert texts(found)["bundle.json"] == "bundle.json of a"
    assert model_folder(f"org/model@{second}").name == second
    assert "has no revision v2" in refusal("org/model@v2")
    assert "names a revision already" in refusal("org/model@v1", revision="main")


def test_the_token_is_sent(hub, model, monkeypatch):
    hub.push("org/secret", model())
    hub.private.add("org/secret")
    for token in (None, False, "hf_wrong"):
        assert "give your token as HF_TOKEN" in refusal("org/secret", token=token)
    assert not hub.fetched()
    assert model_folder("org/secret", token=hub.token).is_dir()
    resolved = [(path, sent) for _, path, sent in hub.requests if "/resolve/" in path]
    assert {sent for _, sent in resolved} == {f"Bearer {hub.token}"}
    # As it is stored, or in the environment.
    monkeypatch.setenv("HF_TOKEN", hub.token)
    hub.requests.clear()
    assert model_folder("org/secret").is_dir()
    assert f"Bearer {hub.token}" in {sent for _, _, sent in hub.requests}


def test_what_is_not_there_is_one_line(hub, model, tmp_path):
    assert "org/none is no folder here, and no model on the Hub" in refusal("org/none")
    hub.push("org/gated", model())
    hub.gated.add("org/gated")
    assert "org/gated is gated" in refusal("org/gated")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "other.bin").write_text("x")
    hub.push("org/empty", tmp_path / "empty")
    assert "org/empty on the Hub holds none of bundle.json" in refusal("org/empty")


@pytest.fixture
def unreachable(hub, monkeypatch):
    """From now on, nobody answers."""
    from huggingface_hub import constants

    def unplug():
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")

    return unplug


def test_without_a_network_the_cache_serves(hub, model, unreachable, monkeypatch):
    from huggingface_hub import constants

    hub.push("org/model", model("a"))
    hub.push("org/model", model("b"), "v2")
    online = model_folder("org/model")
    hub.push("org/model", model("c"))
    asked = len(hub.requests)
    assert model_folder("org/model", offline=True) == online
    missing = "neither the Hub nor a whole copy"
    assert missing in refusal("org/model@v2", offline=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert model_folder("org/model") == online
    assert missing in refusal("org/other")
    assert len(hub.requests) == asked
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    unreachable()
    assert model_folder("org/model") == online
    assert missing in refusal("org/other")


def test_a_copy_that_lacks_a_file_does_not_serve_offline(hub, model):
    hub.push("org/model", model())
    model_folder("org/model", ["bundle.json"])
    assert "nor a whole copy" in refusal("org/model", files=BUNDLE_FILES, offline=True)


def test_models_do_not_mix_in_one_savedir(hub, model, tmp_path):
    for name in ("a", "b"):
        hub.push(f"org/{name}", model(name))
    for offline in (False, True):
        for name in ("a", "b"):
            found = model_folder(f"org/{name}", savedir=tmp_path / "kept", offline=offline)
            assert texts(found)["bundle.json"] == f"bundle.json of {name}"
            assert found.is_relative_to(tmp_path / "kept")
    assert not (tmp_path / "hub").exists()


def test_what_is_here_is_not_looked_up(hub, model, tmp_path):
    (tmp_path / "org" / "model").mkdir(parents=True)
    places = ["org/model", "org/model/", "./org/none", "/org/none", "none", "a/b/c", "~/none", ".."]
    for place in (*places, tmp_path / "none"):
        assert not is_of_hub(place)
        assert model_folder(place) == Path(os.path.expanduser(place))
    assert "it has no revision v1" in refusal("org/model", revision="v1")
    assert not hub.requests


@pytest.fixture
def snapshot(bundle, tmp_path):
    """A bundle as it lies in the Hub's cache, one of its files in the store of all repositories."""
    repository = tmp_path / "cache" / "models--org--model"
    snapshot, blobs = repository / "snapshots" / ("c" * 40), repository / "blobs"
    store = tmp_path / "cache" / "blobs" / "ab"
    for folder in (snapshot, blobs, store):
        folder.mkdir(parents=True)
    for i, name in enumerate(BUNDLE_FILES):
        blob = f"{i}" * 40
        shutil.copy(bundle / name, blobs / blob)
        (snapshot / name).symlink_to(f"../../blobs/{blob}")
    shutil.move(blobs / ("1" * 40), store / ("ab" * 32))
    (blobs / ("1" * 40)).symlink_to(f"../../blobs/ab/{'ab' * 32}")
    return snapshot


def test_a_bundle_is_read_where_the_hub_keeps_it(snapshot, bundle, tmp_path, monkeypatch):
    expected = read_bundle(bundle).manifest
    assert read_bundle(snapshot).manifest == expected
    monkeypatch.chdir(snapshot)
    assert read_bundle(".").manifest == expected
    (tmp_path / "link").symlink_to(snapshot)
    assert read_bundle(tmp_path / "link").manifest == expected


def link(path, target):
    path.unlink()
    path.symlink_to(target)


def move_blobs_away(snapshot):
    blobs = snapshot.parents[1] / "blobs"
    own = blobs / ("1" * 40)
    shutil.move(own.resolve(), own)
    shutil.move(blobs, snapshot.parents[3] / "moved")
    blobs.symlink_to("../../moved")


def move_store_away(snapshot):
    store = snapshot.parents[2] / "blobs"
    shutil.move(store, snapshot.parents[3] / "moved")
    store.symlink_to("../moved")


@pytest.mark.parametrize(
    "forge",
    [
        lambda s: link(s / BUNDLE_FILES[1], s.parents[3] / "bundle" / BUNDLE_FILES[1]),
        lambda s: link(s / BUNDLE_FILES[1], f"../../../../bundle/{BUNDLE_FILES[1]}"),
        lambda s: link(s / BUNDLE_FILES[1], f"../../blobs/../../../bundle/{BUNDLE_FILES[1]}"),
        lambda s: link(s.parents[1] / "blobs" / ("1" * 40), f"../../../bundle/{BUNDLE_FILES[1]}"),
        lambda s: link(
            s.parents[2] / "blobs" / "ab" / ("ab" * 32), f"../../../bundle/{BUNDLE_FILES[1]}"
        ),
        lambda s: s.parent.rename(s.parents[1] / "other"),
        move_blobs_away,
        move_store_away,
    ],
    ids=["absolute", "relative", "upwards", "blob", "shared", "other", "blobs", "store"],
)
def test_a_link_out_of_the_cache_is_refused(snapshot, forge):
    forge(snapshot)
    folder = snapshot if snapshot.exists() else snapshot.parents[1] / "other" / snapshot.name
    # Each would lead to the right file.
    assert all((folder / name).is_file() for name in BUNDLE_FILES)
    with pytest.raises(ConfigError, match="is a link, and not one of the Hub's cache"):
        read_bundle(folder)
