from dataclasses import replace

import pytest

from todm_sb.dataio.fingerprint import dev_set_id
from todm_sb.dataio.manifest import Row, write_csv
from todm_sb.errors import DataError


class Plain:
    """A tokenizer that knows full stops only."""

    def normalize(self, text):
        return text.replace("…", "...")


@pytest.fixture
def rows(tmp_path):
    paths = [tmp_path / f"{name}.wav" for name in "ab"]
    for path in paths:
        path.write_bytes(path.name.encode())
    return [Row(p.stem, 1.5, str(p), "spk", "ONE…") for p in paths]


def identity(tmp_path, rows):
    write_csv(tmp_path / "dev.csv", rows)
    return dev_set_id(tmp_path / "dev.csv", Plain())


def test_what_changes_error_rates_makes_another_set(tmp_path, rows):
    first, second = rows
    other = tmp_path / "other.wav"
    other.write_bytes(b"B.wav")
    others = [
        [first],
        [first, replace(second, ID="c")],
        [first, replace(second, wrds="TWO")],
        [first, replace(second, duration=1.6)],
        [first, replace(second, wav=str(other))],
        [first, replace(second, wav=str(tmp_path / "none.wav"))],
    ]
    ids = [identity(tmp_path, x) for x in [rows, *others]]
    assert len(set(ids)) == len(ids)


def test_what_does_not_change_them_does_not(tmp_path, rows):
    first, second = rows
    elsewhere = tmp_path / "elsewhere.wav"
    elsewhere.write_bytes(b"b.wav")
    same = [
        [second, first],
        [first, replace(second, wav=str(elsewhere))],
        [first, replace(second, wrds="  ONE...")],
        [first, replace(second, spk_id="another")],
    ]
    assert {identity(tmp_path, x) for x in same} == {identity(tmp_path, rows)}


def test_a_manifest_without_its_audio_is_an_error(tmp_path, rows):
    for row in rows:
        (tmp_path / f"{row.ID}.wav").unlink()
    with pytest.raises(DataError, match="none of its audio files"):
        identity(tmp_path, rows)


def test_a_manifest_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        dev_set_id(tmp_path / "dev.csv", Plain())
