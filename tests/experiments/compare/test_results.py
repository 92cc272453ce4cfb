"""Two systems are compared utterance by utterance, each of which is of one fold."""

from todm_sb.experiments.compare.bootstrap import relative_difference
from todm_sb.experiments.compare.results import Tested, compare_error_rates


def pair(ours, theirs, speakers=None):
    """Errors of both in utterances that are called 0, 1, ..."""
    ids = [str(i) for i in range(len(ours))]
    named = dict(zip(ids, speakers or [], strict=False))
    both = (
        Tested(dict.fromkeys(ids, 10), dict(zip(ids, x, strict=True)), named)
        for x in (ours, theirs)
    )
    return [tuple(both)]


def test_utterances_of_two_folds_that_share_an_id_are_two():
    found = compare_error_rates({"a-1": pair([9, 1], [5, 4]), "b-1": pair([5, 3], [5, 2])})
    ours, theirs = [[9, 1, 0, 0], [0, 0, 5, 3]], [[5, 4, 0, 0], [0, 0, 5, 2]]
    assert found["relative difference"] == relative_difference(ours, theirs).to_dict()
    assert (found["units"], found["unit"]) == (4, "utterances")
    assert found["WER"] == 100 * 18 / 40


def test_speakers_whom_nobody_knows_are_utterances_of_their_folds():
    """A run writes an utterance's id in place of its speaker."""
    unknown = ["0", "1"]
    found = compare_error_rates(
        {"a-1": pair([9, 1], [5, 4], unknown), "b-1": pair([5, 3], [5, 2], unknown)}
    )
    ours, theirs = [[9, 1, 0, 0], [0, 0, 5, 3]], [[5, 4, 0, 0], [0, 0, 5, 2]]
    assert found["relative difference"] == relative_difference(ours, theirs).to_dict()
    assert (found["units"], found["unit"]) == (4, "utterances")


def test_an_utterance_of_two_seeds_is_one():
    expected = relative_difference([[9, 1], [5, 3]], [[5, 4], [5, 2]]).to_dict()
    for seeds in ([1, 2], ["a-1", "a-2"]):
        pairs = (pair([9, 1], [5, 4]), pair([5, 3], [5, 2]))
        found = compare_error_rates(dict(zip(seeds, pairs, strict=True)))
        assert found["relative difference"] == expected
        assert found["units"] == 2


def test_each_fold_has_its_own_speakers_for_the_same_ids():
    found = compare_error_rates(
        {
            "a-1": pair([9, 9, 1, 1], [5, 5, 5, 5], ["anna", "anna", "bob", "bob"]),
            "b-1": pair([6, 5, 4, 5], [5, 5, 5, 5], ["carl", "dora", "carl", "dora"]),
        }
    )
    ours, theirs = [[18, 2, 0, 0], [0, 0, 10, 10]], [[10, 10, 0, 0], [0, 0, 10, 10]]
    assert found["relative difference"] == relative_difference(ours, theirs).to_dict()
    assert (found["units"], found["unit"]) == (4, "speakers")


def test_who_speaks_in_two_folds_is_drawn_as_one():
    """Errors of the same speaker go together, whatever they are trained on."""
    found = compare_error_rates(
        {
            "a-1": pair([9, 1], [5, 4], ["anna", "bob"]),
            "b-1": pair([5, 3], [5, 2], ["anna", "carl"]),
        }
    )
    ours, theirs = [[9, 1, 0], [5, 0, 3]], [[5, 4, 0], [5, 0, 2]]
    assert found["relative difference"] == relative_difference(ours, theirs).to_dict()
    assert (found["units"], found["unit"]) == (3, "speakers")
