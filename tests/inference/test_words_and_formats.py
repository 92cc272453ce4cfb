import itertools
import json
import math
import random
import unicodedata

import pytest

from todm_sb.dataio.detokenizer import Detokenizer
from todm_sb.inference.formats import as_ctm, as_json, as_srt, as_text, as_vtt, cues_of
from todm_sb.inference.results import Alternative, Segment, Transcript, Word
from todm_sb.inference.words import LONGEST_TAIL, Labels, words_of_labels

PIECES = ["", "\u2581TURN", "\u2581", "ON", "S", "\u2581A", "北", "京", 0xC3, 0x84, "X Y"]


def words_of(ids, frames, log_probs=None, seconds=9.0):
    labels = Labels(ids, frames, log_probs or [0.0] * len(ids))
    return words_of_labels(labels, Detokenizer(PIECES), 0.04, seconds)


def test_a_word_begins_at_its_first_letter_and_ends_before_the_next():
    words = words_of([1, 2, 3, 4, 5], [5, 8, 9, 10, 50])
    assert [(w.text, round(w.start, 3), round(w.end, 3)) for w in words] == [
        ("TURN", 0.2, 0.36),
        ("ONS", 0.36, round(0.4 + LONGEST_TAIL, 3)),
        ("A", 2.0, round(2.0 + LONGEST_TAIL, 3)),
    ]


def test_no_word_is_outside_the_audio_or_ends_before_it_begins():
    for word in words_of([1, 5, 3], [2, 2, 30], seconds=0.5):
        assert 0 <= word.start <= word.end <= 0.5
    assert words_of([], []) == []
    assert words_of([2], [1]) == []


def test_confidence_is_the_geometric_mean_of_a_words_labels():
    p = [0.9, 0.5, 0.8, 0.25, 1.0]
    words = words_of([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [math.log(x) for x in p])
    expected = [0.9, (0.5 * 0.8 * 0.25) ** (1 / 3), 1.0]
    assert [w.confidence for w in words] == pytest.approx(expected)


def test_a_word_of_bytes_begins_at_the_first_and_is_as_sure_as_all_of_them():
    labels = Labels([6, 11, 12, 13], [3, 10, 11, 12], [-1.0, -3.0, -3.0, 0.0])
    before, word = words_of_labels(labels, Detokenizer([*PIECES, *"好".encode()]), 0.04, 9.0)
    assert (before.text, before.confidence) == ("北", pytest.approx(math.exp(-1)))
    assert (word.text, word.start) == ("好", pytest.approx(0.4))
    assert word.confidence == pytest.approx(math.exp(-2))


def test_scripts_without_spaces_bytes_and_spaces_within_a_piece():
    assert [w.text for w in words_of([6, 7, 5], [1, 2, 3])] == ["北", "京", "A"]
    assert [w.text for w in words_of([1, 8, 9], [1, 2, 3])] == ["TURNÄ"]
    assert [w.text for w in words_of([1, 10, 3], [1, 2, 3])] == ["TURNX", "YON"]
    assert [w.text for w in words_of([1, 8], [1, 2])] == ["TURN\ufffd"]


def transcript(*words, n=1):
    words = tuple(Word(*word) for word in words)
    best = Alternative(" ".join(w.text for w in words), words, -1.5)
    other = Alternative("OTHER", (), -2.0)
    return Transcript(3700.0, (Segment(0.0, 3700.0, (best, other)[: n + 1]),))


HOUR = transcript(("A<B", 0.0, 0.5, 0.75), ("C&D", 0.5, 1.0, 1.0), ("LATE", 3661.0005, 3662.5, 0.5))


def test_subtitles_have_their_clocks_and_letters():
    assert as_srt(HOUR) == (
        "1\n00:00:00,000 --> 00:00:01,000\nA<B C&D\n\n2\n01:01:01,000 --> 01:01:02,500\nLATE\n\n"
    )
    assert as_vtt(HOUR) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nA&lt;B C&amp;D\n"
        "\n01:01:01.000 --> 01:01:02.500\nLATE\n"
    )


def test_subtitles_are_short_enough_to_be_read():
    words = [(f"WORD{i:03}", i * 0.3, i * 0.3 + 0.3, 1.0) for i in range(100)]
    blocks = as_srt(transcript(*words)).split("\n\n")[:-1]
    texts = [block.split("\n")[2:] for block in blocks]
    assert all(len(lines) <= 2 and max(map(len, lines)) <= 42 for lines in texts)
    assert " ".join(" ".join(lines) for lines in texts).split() == [w[0] for w in words]


@pytest.mark.parametrize("seed", range(5))
def test_no_line_of_a_subtitle_is_too_long_and_none_is_needlessly_short(seed):
    rng = random.Random(seed)
    words = ["X" * rng.choice((1, 8, 20, 26, 41, 42, 43, 60, 84)) for _ in range(100)]
    cues = cues_of(transcript(*((w, 0.01 * i, 0.01 * i, 1.0) for i, w in enumerate(words))))
    lines = [cue.text.split("\n") for cue in cues]
    assert all(len(own) <= 2 and max(map(len, own)) <= 42 for own in lines)
    assert "".join(cue.text for cue in cues).replace("\n", "").replace(" ", "") == "".join(words)
    for own, following in itertools.pairwise(lines):
        more = [*" ".join(own).split(), following[0].split()[0]]
        splits = [(" ".join(more[:i]), " ".join(more[i:])) for i in range(len(more))]
        assert all(max(map(len, split)) > 42 for split in splits)


def test_a_word_that_no_subtitle_holds_has_several():
    thai = "สวัสดีครับวันนี้อากาศดีมากเราจะไปเที่ยวทะเลกัน" * 3
    cues = cues_of(transcript((thai, 1.0, 23.0, 1.0)))
    assert "".join(cue.text for cue in cues).replace("\n", "") == thai
    assert all(len(line) <= 42 for cue in cues for line in cue.text.split("\n"))
    assert not any(unicodedata.combining(cue.text[0]) for cue in cues)
    assert (cues[0].start, cues[-1].end) == (1.0, pytest.approx(23.0))
    assert all(cue.end - cue.start < 8 for cue in cues)


def test_lines_are_measured_as_they_are_shown():
    cues = cues_of(transcript(("\x1b" * 42, 0.0, 3.0, 1.0), ("B", 3.0, 3.1, 1.0)))
    lines = [line for cue in cues for line in cue.text.split("\n")]
    assert "".join(lines).count("1b") == 42
    assert max(map(len, lines)) <= 42


def test_a_subtitle_of_the_last_frame_is_seen():
    assert "00:00:02.000 --> 00:00:02.100\nNO" in as_vtt(transcript(("NO", 2.0, 2.0, 1.0)))


def test_ctm_has_a_word_a_line():
    assert as_ctm(HOUR, "my file").splitlines() == [
        "my_file 1 0.000 0.500 A<B 0.750",
        "my_file 1 0.500 0.500 C&D 1.000",
        "my_file 1 3661.001 1.499 LATE 0.500",
    ]


def test_json_escapes_what_json_itself_does_not():
    line = as_json({"audio": "a", "text": "\x9b2J\x7fÄ\u2028"})
    assert line.endswith("\n")
    assert "\\u009b2J\\u007fÄ" in line
    assert json.loads(line)["text"] == "\x9b2J\x7fÄ\u2028"
    assert json.loads(as_json([{"a": "\x9b"}], indent=1)) == [{"a": "\x9b"}]


def test_json_has_alternatives_where_they_are_wanted():
    one, two = HOUR.to_dict(), transcript(("A", 0.0, 1.0, 0.5)).to_dict(nbest=2)
    assert one.keys() == {"seconds", "text", "words"}
    assert one["words"][0] == {"word": "A<B", "start": 0.0, "end": 0.5, "confidence": 0.75}
    (segment,) = two["segments"]
    assert [x["text"] for x in segment["nbest"]] == ["A", "OTHER"]
    assert segment["nbest"][0]["score"] == -1.5


def test_text_has_no_control_characters():
    assert as_text(transcript(("A\x1b\n", 0.0, 1.0, 1.0))) == "A\\x1b\\x0a\n"
