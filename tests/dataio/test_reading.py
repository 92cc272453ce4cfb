"""Manifests that other programs and people write, and what they can get wrong in them."""

import json

import pytest
from speechbrain.dataio.dataset import DynamicItemDataset

from todm_sb.dataio.check import Limits, check_manifest
from todm_sb.dataio.manifest import Row, read_csv, row_of, write_csv
from todm_sb.dataio.reading import Reading, read_lines
from todm_sb.utils.errors import ConfigError, DataError

ENTRIES = {
    "b-1": {"wav": "{data_root}/b.flac", "duration": 1.25, "spk_id": 7, "wrd": "Öffne die Tür"},
    "a-1": {"wav": "sub/a.wav", "duration": 3, "wrd": "打开 门"},
}
READING = Reading(data_root="/corpus")


def rows_in(path, reading=READING):
    return [row_of(cells) for _, cells in read_lines(path, reading)]


def test_csv_and_json_of_speechbrain_are_the_same_rows(tmp_path):
    (tmp_path / "m.json").write_text(json.dumps(ENTRIES, ensure_ascii=False))
    columns = ["duration", "wav", "spk_id", "wrd"]
    lines = [[name, *(str(x.get(key, "")) for key in columns)] for name, x in ENTRIES.items()]
    text = "\n".join(map(",".join, [["ID", *columns], *lines]))
    (tmp_path / "m.csv").write_text(text.replace("{data_root}", "$data_root"))
    (tmp_path / "braces.csv").write_text(text.replace("data_root", "data_folder"))
    expected = [
        Row("b-1", 1.25, "/corpus/b.flac", "7", "Öffne die Tür"),
        Row("a-1", 3.0, str(tmp_path / "sub/a.wav"), "", "打开 门"),
    ]
    for name in ("m.json", "m.csv", "braces.csv"):
        assert rows_in(tmp_path / name) == expected
    # SpeechBrain's own readers see the same, but for relative paths.
    for load, name in (
        (DynamicItemDataset.from_csv, "m.csv"),
        (DynamicItemDataset.from_json, "m.json"),
    ):
        data = load(str(tmp_path / name), replacements={"data_root": "/corpus"}).data
        for row, wav in zip(expected, ("/corpus/b.flac", "sub/a.wav"), strict=True):
            item = data[row.ID]
            assert (float(item["duration"]), item["wav"], item["wrd"]) == (
                row.duration,
                wav,
                row.wrds,
            )


def test_json_may_come_without_its_suffix_and_audio_as_an_object(tmp_path):
    audio = {"file": "/a.wav", "start": 16000, "stop": 32000}
    (tmp_path / "m").write_text(json.dumps({"x": {"wav": audio, "duration": 1.0, "wrds": "A"}}))
    assert rows_in(tmp_path / "m") == [Row("x", 1.0, "/a.wav", "", "A", 16000.0, 32000.0)]


def test_json_of_speechbrains_templates_has_its_duration_as_length(tmp_path):
    (tmp_path / "m.json").write_text('{"x": {"wav": "/a.wav", "length": 1.5, "words": "A"}}')
    assert rows_in(tmp_path / "m.json", Reading("words")) == [Row("x", 1.5, "/a.wav", "", "A")]


def test_parts_of_files_read_back_as_they_were_written(tmp_path):
    rows = [Row("a", 1.5, "/a.wav", "s", "ONE", 0.25, 1.75), Row("b", 9.0, "/b.wav", "s", "TWO")]
    write_csv(tmp_path / "m.csv", rows)
    assert (tmp_path / "m.csv").read_text().splitlines()[1:] == [
        "a,1.5,/a.wav,s,ONE,0.25,1.75",
        "b,9.0,/b.wav,s,TWO,,",
    ]
    assert read_csv(tmp_path / "m.csv") == rows_in(tmp_path / "m.csv") == rows


@pytest.mark.parametrize(
    ("header", "reading", "expected"),
    [
        ("ID,duration,wav,wrd", Reading(), "Weiß"),
        ("ID,duration,wav,wrds", Reading(), "Weiß"),
        ("ID,duration,wav,satz", Reading("satz"), "Weiß"),
        ("ID,duration,wav,wrd", Reading(letter_case="upper"), "WEISS"),
        ("ID,duration,wav,wrd", Reading(letter_case="lower"), "weiß"),
    ],
)
def test_the_transcripts_have_the_column_and_the_letters_asked_for(
    tmp_path, header, reading, expected
):
    (tmp_path / "m.csv").write_text(f"{header}\na,1.0,a.wav,Weiß\n")
    assert [row.wrds for row in rows_in(tmp_path / "m.csv", reading)] == [expected]


def test_of_two_columns_of_transcripts_one_is_named(tmp_path):
    (tmp_path / "m.csv").write_text("ID,duration,wav,wrd,wrds\na,1.0,a.wav,ONE,TWO\n")
    with pytest.raises(DataError, match="columns 'wrds' and 'wrd': name that of the transcripts"):
        rows_in(tmp_path / "m.csv")
    assert [row.wrds for row in rows_in(tmp_path / "m.csv", Reading("wrd"))] == ["ONE"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ID,duration,wav,text\n", r"no column 'wrds' or 'wrd' \(it has ID, duration, wav, text\)"),
        ("ID,length,wav,wrd\n", r"no column 'duration' \(it has ID, length, wav, wrd\)"),
        ("ID,duration,wav,wrd,start\n", "but one of the columns 'start' and 'stop'"),
        ("ID,duration,wav,wrd,wrd\n", "has 2 columns 'wrd': leave one"),
        ("ID,duration,wav,wrd\na,1,{data_root}/a,X\n", "{data_root} is in the path of 'a': give"),
        ('{"a": {"wav": "a.wav", "duration": 1, "wrd": "X"}', "is not JSON .*line 1"),
        ('{"a": {"wav": "a", "duration": 1}}\n{"b": {}}', "is not JSON .Extra data: line 2"),
        ('[{"ID": "a"}]', "is no JSON object, but a list: it takes one, of an entry for each ID"),
        ('{"a": "a.wav"}', "'a': 'a.wav' in place of an object"),
        ('{"a": {"wav": "a.wav", "wrd": "X"}}', r"no column 'duration' \(it has ID, wav, wrd\)"),
        ('{"a": {"wav": ["a.wav"], "duration": 1, "wrd": "X"}}', "'wav' must be text .* a list"),
        ('{"a": {"wav": "a", "duration": true, "wrd": "X"}}', "'duration' must be .*, not True"),
        ('{"a": {"wav": "a", "duration": 1, "wrd": {"x": 1}}}', "'wrd' must be text .* an object"),
        (r'{"a": {"wav": "a", "duration": 1, "wrd": "\ud800"}}', "'a': 'wrd' is no text"),
        (r'{"a": {"wav": "a\u0000", "duration": 1, "wrd": "X"}}', "'a': 'wav' is no text"),
        ("[" * 100_000, "is not JSON"),
        ('{"a": {"wav": "a", "wrd": "X", "duration": ' + "1" * 5000 + "}}", "is not JSON"),
    ],
)
def test_a_manifest_that_is_none_is_one_line(tmp_path, text, message):
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_lines(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["m.json", "m.csv"])
def test_an_empty_file_is_one_line(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"is not JSON|has no column 'ID' \(it has none\)"):
        read_lines(tmp_path / name)
    (tmp_path / "no.json").write_text("{}")
    with pytest.raises(DataError, match="the manifest is empty"):
        check_manifest(tmp_path / "no.json", Limits()).require()


def test_json_shows_the_ids_that_it_has_twice_and_what_an_entry_lacks(tmp_path):
    entry = '{"wav": "/a.wav", "duration": 1.0, "wrd": "ONE"}'
    lacking = '{"duration": 1.0}'
    (tmp_path / "m.json").write_text(
        f'{{"a": {entry}, "a": {entry}, "b": {lacking}, "c": {entry}}}'
    )
    report = check_manifest(tmp_path / "m.json", Limits(), "none")
    assert [row.ID for row in report.rows] == ["a", "c"]
    assert [(f.line, f.id, f.cause) for f in report.faults] == [
        (2, "a", "duplicate id"),
        (3, "b", "empty transcript"),
    ]


@pytest.mark.parametrize(
    ("start", "stop", "cause"),
    [
        ("2.0", "1.0", "stop is not after start"),
        ("1.0", "1.0", "stop is not after start"),
        ("-1.0", "1.0", "start or stop is not a number"),
        ("", "1.0", "start or stop is not a number"),
        ("0", "", "start or stop is not a number"),
        ("one", "two", "start or stop is not a number"),
        ("nan", "1.0", "start or stop is not a number"),
        ("0", "inf", "start or stop is not a number"),
    ],
)
def test_a_part_has_a_start_before_its_stop(tmp_path, start, stop, cause):
    (tmp_path / "m.csv").write_text(
        f"ID,duration,wav,wrd,start,stop\na,1.0,/a.wav,ONE,{start},{stop}\nb,1.0,/b.wav,TWO,,\n"
    )
    for purpose in ("train", "evaluate"):
        report = check_manifest(tmp_path / "m.csv", Limits(), "none", purpose=purpose)
        assert [row.ID for row in report.rows] == ["b"]
        assert [fault.cause for fault in report.all_faults] == [cause]


def test_another_letter_case_is_refused():
    with pytest.raises(ConfigError, match="letter_case is 'title': make it keep, upper, lower"):
        Reading(letter_case="title")
