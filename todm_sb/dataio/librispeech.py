"""SpeechBrain manifests of LibriSpeech, or of any corpus in its folder layout.

:mod:`todm_sb.dataio.chapters` describes the layout.

Nothing is done over again for a CSV that is there already and comes from the same options, the same
transcripts, and audio files of the same names, sizes and times of change.

An utterance keeps its id; where another one in the split has the same, both are named
``<speaker>-<chapter>-<id>``, and where another of the splits that are put together has it,
``<split>-<id>`` in the CSV of several. Words are what stands between ASCII white space.

What cannot be trained on is left out of the CSVs of training splits. Those of dev and test splits
have all that is there, of duration 0 where the audio cannot be opened and without words where it is
not known which: error rates are of it, or say that they are not.

``spk_id`` is the speaker, in all chapters the same; SpeechBrain's own preparation writes
``<speaker>-<chapter>``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from todm_sb.dataio.chapters import (
    find_chapters,
    is_split,
    misplaced_audio,
    reference_of,
    transcripts_digest,
    unique_ids,
)
from todm_sb.dataio.corpus_split import Split, examine_split, misplaced_fault
from todm_sb.dataio.faults import Fault, causes_of
from todm_sb.dataio.manifest import (
    Row,
    forget,
    is_current,
    mark_current,
    read_csv,
    refuse_changed,
    write_csv,
)
from todm_sb.dataio.reading import LETTER_CASES, check_letter_case
from todm_sb.utils.errors import DataError
from todm_sb.utils.folders import files_digest, subfolders

__all__ = ["LETTER_CASES", "prepare_librispeech", "reference_of"]

logger = logging.getLogger(__name__)


def prepare_librispeech(
    data_folder: str | Path,
    save_folder: str | Path,
    tr_splits: Sequence[str] = (),
    dev_splits: Sequence[str] = (),
    te_splits: Sequence[str] = (),
    merge_lst: Sequence[str] = (),
    merge_name: str | None = None,
    select_n_sentences: int | Sequence[int] | None = None,
    skip_prep: bool = False,
    strict: bool = False,
    num_threads: int = 8,
    letter_case: str = "keep",
) -> None:
    """Writes ``<save_folder>/<split>.csv`` for each split, and one CSV of several if asked for.

    Args:
        data_folder: the folder that holds the splits (usually ``.../LibriSpeech``).
        save_folder: where the CSVs go.
        tr_splits, dev_splits, te_splits: names of training, validation and test splits, such as
            ``["train-clean-100", "train-clean-360"]``.
        merge_lst: splits to put together into one more CSV, in this order.
        merge_name: its file name, such as ``train.csv``.
        select_n_sentences: how many utterances of a split to keep, the first ones; a list gives
            each split its own number, in the order of tr, dev and te splits.
        skip_prep: if True, nothing is done.
        strict: if True, the first fault is an error; otherwise faults are logged.
        num_threads: audio files opened at a time.
        letter_case: ``keep`` leaves the letters of the transcripts alone, ``upper`` and ``lower``
            change them.

    Raises:
        ConfigError: if `letter_case` is none of these.
        DataError: if a folder or split is missing, a split has no usable utterance, the options
            contradict each other, two utterances cannot be told apart, a CSV was changed by
            somebody else, or (with `strict`) an utterance cannot be used.
    """
    if skip_prep:
        return
    check_letter_case(letter_case)
    data_folder, save_folder = Path(data_folder).resolve(), Path(save_folder)
    names = list(dict.fromkeys([*tr_splits, *dev_splits, *te_splits]))
    limits = _limits(names, select_n_sentences)
    merged_csv = _merged_csv(save_folder, names, merge_lst, merge_name)
    _check_splits(data_folder, names)
    csvs = {name: save_folder / f"{name}.csv" for name in names}
    for path in (*csvs.values(), *([merged_csv] if merged_csv else [])):
        refuse_changed(path)
    made_from = {}
    for name, csv in csvs.items():
        keep_all = name in {*dev_splits, *te_splits}
        split = Split(data_folder / name, limits[name], letter_case, keep_all)
        made_from[name] = _prepare_split(split, csv, num_threads, strict)
    if merged_csv is not None:
        _merge(merged_csv, {csvs[name]: made_from[name] for name in merge_lst})


def _prepare_split(split: Split, csv: Path, num_threads: int, strict: bool) -> dict[str, Any]:
    """Writes the CSV of a split, unless it is there already; returns what it comes from."""
    folder = split.folder
    chapters = find_chapters(folder, num_threads)
    misplaced = misplaced_audio(folder, chapters)
    audio = [*misplaced, *(file for chapter in chapters for file in chapter.audio.values())]
    made_from = {
        "folder": str(folder),
        "transcripts": transcripts_digest(chapters),
        "audio": files_digest(audio, num_threads),
        "select_n_sentences": split.limit,
        "letter_case": split.letter_case,
        "spk_id": "speaker",  # earlier CSVs, which had the chapter in it, are made anew
        "all": split.keep_all,
    }
    if is_current(csv, made_from):
        return made_from
    rows, faults = examine_split(split, chapters, num_threads)
    faults = [*map(misplaced_fault, misplaced), *faults]
    _report(folder.name, rows, faults, strict)
    forget(csv)
    write_csv(csv, rows)
    # With faults it is not current: the next call looks again whether they were mended.
    mark_current(csv, made_from | ({"faults": len(faults)} if faults else {}))
    return made_from


def _merge(merged_csv: Path, parts: dict[Path, dict[str, Any]]) -> None:
    """Writes the CSV of several splits, unless it is there already.

    Args:
        merged_csv: what to write.
        parts: what the CSV of each split comes from.
    """
    options = {"merged": list(parts.values())}
    if is_current(merged_csv, options):
        return
    rows = _merged({csv.stem: read_csv(csv) for csv in parts})
    forget(merged_csv)
    write_csv(merged_csv, rows)
    sound = all(is_current(csv, made_from) for csv, made_from in parts.items())
    mark_current(merged_csv, options if sound else {**options, "faults": True})


def _merged(parts: dict[str, list[Row]]) -> list[Row]:
    """The utterances of several splits."""
    rows = [(split, row) for split, rows in parts.items() for row in rows]
    ids = unique_ids([(row.ID, f"{split}-{row.ID}", row.wav) for split, row in rows])
    return [replace(row, ID=name) for name, (_, row) in zip(ids, rows, strict=True)]


def _report(split: str, rows: list[Row], faults: list[Fault], strict: bool) -> None:
    """Logs what is wrong with utterances, or raises if nothing may be or if none is sound."""
    sound = [row for row in rows if row.duration]
    if faults and strict:
        more = f" ({len(faults)} such utterances)" if faults[1:] else ""
        raise DataError(f"{split}: {faults[0].detail}{more}")
    for fault in faults:
        logger.warning("%s: %s", split, fault.detail)
    if faults:
        total = len(sound) + len(faults)
        summary = ", ".join(f"{n} {cause}" for cause, n in sorted(causes_of(faults).items()))
        done = "skipped" if rows == sound else "not sound"
        logger.warning("%s: %d of %d utterances %s: %s", split, len(faults), total, done, summary)
    if not sound:
        raise DataError(
            f"split '{split}' has no usable utterance: it takes <speaker>/<chapter>/*.flac "
            "and, beside them, <speaker>-<chapter>.trans.txt"
        )


def _check_splits(data_folder: Path, splits: Sequence[str]) -> None:
    """Makes sure that the splits are there before any work is done."""
    if not data_folder.is_dir():
        raise DataError(
            f"data_folder {data_folder} is not there: give the folder that holds the splits"
        )
    missing = [split for split in splits if not (data_folder / split).is_dir()]
    if missing:
        found = [folder.name for folder in subfolders(data_folder) if is_split(folder)]
        raise DataError(
            f"no split '{missing[0]}' in {data_folder}, which holds "
            f"{', '.join(found) or 'no split at all'}: correct the name or fetch the split"
        )


def _limits(splits: Sequence[str], select: int | Sequence[int] | None) -> dict[str, int | None]:
    """How many utterances to keep of each split."""
    if select is None or isinstance(select, int):
        return dict.fromkeys(splits, select)
    if len(select) != len(splits):
        raise DataError(
            f"select_n_sentences has {len(select)} numbers for {len(splits)} splits: "
            "give one number, or one for each of tr, dev and te splits"
        )
    return dict(zip(splits, select, strict=True))


def _merged_csv(
    save_folder: Path, splits: Sequence[str], merge_lst: Sequence[str], merge_name: str | None
) -> Path | None:
    """Path of the CSV that holds several splits, or None if none is asked for."""
    if not merge_lst:
        return None
    if len(set(merge_lst)) < len(merge_lst):
        raise DataError(f"merge_lst names a split twice: {', '.join(merge_lst)}")
    if not merge_name:
        raise DataError("merge_lst is given without merge_name: name the merged CSV")
    strangers = [split for split in merge_lst if split not in splits]
    if strangers:
        raise DataError(
            f"merge_lst names '{strangers[0]}', which is not among the splits "
            f"{', '.join(splits)}: add it to tr_splits, dev_splits or te_splits"
        )
    name = merge_name.removesuffix(".csv")
    if list(merge_lst) == [name]:
        return None  # the split's own CSV is what is asked for
    if name in splits:
        raise DataError(f"merge_name '{merge_name}' is the CSV of a split: choose another name")
    return save_folder / f"{name}.csv"
