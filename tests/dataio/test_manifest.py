import csv

import pytest

from todm_sb.dataio.manifest import Row, is_current, mark_current, read_csv, write_csv
from todm_sb.utils.errors import DataError
from todm_sb.utils.files import write_atomic

ROWS = [
    Row("b-1", 1.25, "/data/b-1.flac", "b", "OPEN THE DOOR"),
    Row("a-1", 0.1, "/data/with, comma.flac", "a", "STOP"),
]


def test_a_manifest_has_speechbrains_columns_and_keeps_the_order(tmp_path):
    write_csv(tmp_path / "new" / "train.csv", ROWS)

    lines = (tmp_path / "new" / "train.csv").read_text().splitlines()
    assert lines[0] == "ID,duration,wav,spk_id,wrds"
    assert lines[1] == "b-1,1.25,/data/b-1.flac,b,OPEN THE DOOR"
    with (tmp_path / "new" / "train.csv").open(newline="") as file:
        assert [line["wav"] for line in csv.DictReader(file)] == [row.wav for row in ROWS]


def test_a_manifest_reads_back_as_it_was_written(tmp_path):
    write_csv(tmp_path / "train.csv", ROWS)
    assert read_csv(tmp_path / "train.csv") == ROWS


def test_speechbrain_loads_a_manifest(tmp_path):
    dataset = pytest.importorskip("speechbrain.dataio.dataset")
    write_csv(tmp_path / "train.csv", ROWS)

    loaded = dataset.DynamicItemDataset.from_csv(str(tmp_path / "train.csv"))
    loaded.set_output_keys(["id", "duration", "wrds"])
    assert loaded[0] == {"id": "b-1", "duration": 1.25, "wrds": "OPEN THE DOOR"}
    assert len(loaded) == 2


def test_an_interrupted_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "train.csv"
    write_csv(path, ROWS)
    before = path.read_bytes()

    def rows():
        yield ROWS[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_csv(path, rows())
    with pytest.raises(TypeError):
        write_atomic(path, 5)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["train.csv"]


def test_a_name_may_be_as_long_as_the_disk_allows(tmp_path):
    write_atomic(tmp_path / ("x" * 255), "text")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["text"]


def test_a_file_is_current_only_if_it_exists_and_its_options_are_the_same(tmp_path):
    path, options = tmp_path / "train.csv", {"seed": 1, "splits": ("a", "b"), "n": None}
    assert not is_current(path, options)
    write_csv(path, ROWS)
    assert not is_current(path, options)

    mark_current(path, options)
    assert is_current(path, options)
    assert not is_current(path, options | {"seed": 2})

    path.unlink()
    assert not is_current(path, options)


def test_files_of_one_folder_are_recorded_side_by_side(tmp_path):
    for name in ("train.csv", "dev.csv"):
        write_csv(tmp_path / name, ROWS)
        mark_current(tmp_path / name, {"name": name})
    assert is_current(tmp_path / "train.csv", {"name": "train.csv"})
    assert is_current(tmp_path / "dev.csv", {"name": "dev.csv"})


@pytest.mark.parametrize("broken", ["", "{", "[1]"])
def test_a_broken_record_counts_as_none(tmp_path, broken):
    write_csv(tmp_path / "train.csv", ROWS)
    (tmp_path / "prepared.json").write_text(broken)
    assert not is_current(tmp_path / "train.csv", {})

    mark_current(tmp_path / "train.csv", {"seed": 1})
    assert is_current(tmp_path / "train.csv", {"seed": 1})


HEADER, LINE = "ID,duration,wav,spk_id,wrds", "b-1,1.25,/data/b-1.flac,b,OPEN THE DOOR"


@pytest.mark.parametrize(
    "text",
    [
        f"\ufeff{HEADER}\n{LINE}\n",
        f"\ufeff\ufeff{HEADER}\n{LINE}\n",
        f"\ufeff{HEADER}\n\ufeff{HEADER}\n{LINE}\n{HEADER}\r\n",
        f"{HEADER}\r\n{LINE}\r\n",
        f"{HEADER}\n{LINE}\n\n\n",
        f"\n{HEADER}\n\n{LINE}",
        f"{HEADER}\n{LINE}\n  \n,,,,\n",
        f"{HEADER}\n{LINE},\n",
        f"{HEADER}\n{LINE}\n".replace(",", ", "),
        "wrds,note,wav,ID,duration,spk_id\nOPEN THE DOOR,x,/data/b-1.flac,b-1,1.25,b\n",
    ],
)
def test_what_does_no_harm_is_read_as_if_it_were_not_there(tmp_path, text):
    path = tmp_path / "train.csv"
    path.write_bytes(text.encode())
    assert read_csv(path) == ROWS[:1]


@pytest.mark.parametrize(
    "cell",
    [
        'SAY "AH"',
        '"AH"',
        "ONE, TWO",
        "ONE\nTWO",
        "ONE\r\nTWO",
        "ONE\rTWO",
        " LEADING",
        "TRAILING ",
        "SIX\u2028ZERO",
        "SIX\x0bZERO",
        "SIX\x1cZERO",
        "SIX\x85ZERO",
        "\ufeffSIX",
    ],
)
def test_any_cell_reads_back_as_it_was_written(tmp_path, cell):
    rows = [Row(f"{cell}-1", 1.5, f"/data/{cell}.flac", cell, cell), ROWS[0]]
    write_csv(tmp_path / "train.csv", rows)
    assert read_csv(tmp_path / "train.csv") == rows


def test_a_manifest_of_someone_else_is_one_line(tmp_path):
    path = tmp_path / "train.csv"
    for line in ("a,long,b.wav,s,WORDS", "a,1.0,b.wav,s,WORDS,MORE"):
        path.write_text(f"{HEADER}\n{line}\n")
        with pytest.raises(DataError, match=r"train\.csv was not written by the preparation"):
            read_csv(path)
