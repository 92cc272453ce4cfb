import random

import pytest
from speechbrain.utils.metric_stats import ErrorRateStats

from todm_sb.training.error_rates import ErrorRates


def test_errors_are_counted_by_network_and_utterance(tmp_path):
    errors = ErrorRates(["max", "min"])
    spoken = [["ONE", "TWO"], ["TEN"]]
    errors.append("max", ["b", "a"], [["ONE", "TWO"], ["TEN", "SIX"]], spoken)
    errors.append("min", ["b", "a"], [["ONE"], ["TON"]], spoken)
    errors.merge()
    assert errors.by_utterance() == {
        "utterances": ["a", "b"],
        "words": [1, 2],
        "errors": {"max": [1, 0], "min": [1, 1]},
    }
    rates = errors.rates()
    # Of 10 characters, the space between words among them, 4 are too many; 4 lack and 1 is another.
    assert {name: r["CER"] for name, r in rates.items()} == pytest.approx({"max": 40, "min": 50})
    assert {name: r["WER"] for name, r in rates.items()} == pytest.approx(
        {"max": 100 / 3, "min": 200 / 3}
    )
    errors.write_alignments(tmp_path, "test")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "wer_test_max.txt",
        "wer_test_min.txt",
    ]
    assert "%WER 66.67" in (tmp_path / "wer_test_min.txt").read_text()


def test_character_errors_are_those_of_speechbrain():
    rng = random.Random(1)

    def text():
        return ["".join(rng.choices("abß", k=rng.randint(1, 4))) for _ in range(rng.randint(0, 6))]

    errors, expected = ErrorRates(["max"]), ErrorRateStats(split_tokens=True, space_token=" ")
    for _ in range(3):
        batch = [*range(20)], [text() for _ in range(20)], [text() for _ in range(20)]
        errors.append("max", *batch)
        expected.append(*batch)
    assert errors.rates()["max"]["CER"] == pytest.approx(expected.summarize("error_rate"))


def test_where_nothing_was_said_rates_are_0_as_speechbrain_s_are():
    """A reference may be of characters that the tokenizer leaves out."""
    errors, expected = ErrorRates(["max"]), ErrorRateStats(split_tokens=True, space_token=" ")
    errors.append("max", ["a"], [["ONE"]], [[]])
    expected.append(["a"], [["ONE"]], [[]])
    assert errors.rates() == {"max": {"WER": 0.0, "CER": expected.summarize("error_rate")}}


def test_what_cannot_be_decoded_counts_as_deleted(tmp_path):
    errors = ErrorRates(["max", "min"])
    errors.append_undecodable({})
    for name in ("max", "min"):
        errors.append(name, ["a"], [["ONE", "TWO"]], [["ONE", "TWO"]])
    errors.append_undecodable({"c": ["SIX"], "b": ["TEN", "TEN"]})
    errors.merge()
    assert errors.scored() == {"utterances": 3, "words": 5, "undecodable": 2}
    assert errors.by_utterance() == {
        "utterances": ["a", "b", "c"],
        "words": [2, 2, 1],
        "errors": {"max": [0, 2, 1], "min": [0, 2, 1]},
    }
    # 7, 7 and 3 characters.
    assert errors.rates()["min"] == pytest.approx({"WER": 60, "CER": 1000 / 17})
    errors.write_alignments(tmp_path, "test")
    text = (tmp_path / "wer_test_min.txt").read_text()
    assert "%WER 60.00 [ 3 / 5, 0 ins, 3 del, 0 sub ]" in text
    assert "\nb, " in text
