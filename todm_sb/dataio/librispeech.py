"""SpeechBrain manifests of LibriSpeech, or of any corpus in its folder layout.

The layout is ``<split>/<speaker>/<chapter>/<speaker>-<chapter>-<nnnn>.flac`` with the words of a
chapter in ``<speaker>-<chapter>.trans.txt`` beside the audio, one utterance a line.
"""

from __future__ import annotations

import glob
import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import soundfile
from tqdm import tqdm

from todm_sb.dataio.manifest import Row, forget, is_current, mark_current, read_csv, write_csv
from todm_sb.errors import DataError

logger = logging.getLogger(__name__)

# Inside a split: speaker, chapter, file.
AUDIO = "*/*/*.flac"
TRANSCRIPTS = "*/*/*.trans.txt"


@dataclass(frozen=True)
class Problem:
    """Why an utterance cannot be used.

    Args:
        kind: for counting, such as ``empty transcript``.
        message: the utterance or file, and the mend.
    """

    kind: str
    message: str


@dataclass(frozen=True)
class _Line:
    """One line of a transcript file."""

    id: str
    words: str
    file: Path


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
) -> None:
    """Writes ``<save_folder>/<split>.csv`` for each split, and one CSV of several if asked for.

    Nothing is done over again for a CSV that is there already and comes from the same options
    and transcripts.

    Args:
        data_folder: the folder that holds the splits (usually ``.../LibriSpeech``).
        save_folder: where the CSVs go.
        tr_splits: training splits, such as ``["train-clean-100", "train-clean-360"]``.
        dev_splits: validation splits.
        te_splits: test splits.
        merge_lst: splits to put together into one more CSV, in this order.
        merge_name: its file name, such as ``train.csv``.
        select_n_sentences: how many utterances of a split to keep, the first ones; a list gives
            each split its own number, in the order of tr, dev and te splits.
        skip_prep: if True, nothing is done.
        strict: if True, the first utterance that cannot be used is an error; otherwise such
            utterances are left out and logged.
        num_threads: audio files opened at a time.

    Raises:
        DataError: if a folder or split is missing, a split has no usable utterance, the options
            contradict each other, or (with `strict`) an utterance cannot be used.
    """
    if skip_prep:
        return
    data_folder, save_folder = Path(data_folder).resolve(), Path(save_folder)
    splits = list(dict.fromkeys([*tr_splits, *dev_splits, *te_splits]))
    limits = _limits(splits, select_n_sentences)
    merged_csv = _merged_csv(save_folder, splits, merge_lst, merge_name)
    _check_splits(data_folder, splits)

    made_from: dict[str, dict] = {}
    for split in splits:
        path, folder = save_folder / f"{split}.csv", data_folder / split
        made_from[split] = {
            "folder": str(folder),
            "transcripts": _digest(folder),
            "select_n_sentences": limits[split],
        }
        if is_current(path, made_from[split]):
            continue
        rows, problems = read_split(folder, limits[split], num_threads)
        _report(split, rows, problems, strict)
        forget(path)
        write_csv(path, rows)
        if not problems:  # else the next call looks again whether they were mended
            mark_current(path, made_from[split])

    if merged_csv is not None:
        options = {"merged": [made_from[split] for split in merge_lst]}
        if not is_current(merged_csv, options):
            parts = {split: save_folder / f"{split}.csv" for split in merge_lst}
            forget(merged_csv)
            write_csv(merged_csv, (row for path in parts.values() for row in read_csv(path)))
            if all(is_current(path, made_from[split]) for split, path in parts.items()):
                mark_current(merged_csv, options)


def read_split(
    folder: str | Path, limit: int | None = None, num_threads: int = 8
) -> tuple[list[Row], list[Problem]]:
    """Reads the transcripts of a split and the headers of its audio files.

    Args:
        folder: the split's folder.
        limit: if given, look at no more than so many transcribed utterances.
        num_threads: audio files opened at a time.

    Returns:
        The usable utterances in the order of the transcripts' paths, and what is wrong with the
        others.
    """
    folder = Path(folder)
    audio = {path.stem: path for path in sorted(folder.glob(AUDIO))}
    transcribed = {line.id: line for line in _read_transcripts(folder)}
    problems = [
        Problem(
            "audio without transcript",
            f"{path} has no transcript: add its line to the .trans.txt beside it, or remove it",
        )
        for name, path in audio.items()
        if name not in transcribed
    ]

    def examine(line: _Line) -> Row | Problem:
        path = audio.get(line.id)
        if path is None:
            return Problem(
                "transcript without audio",
                f"utterance {line.id} has no audio: put {line.id}.flac beside {line.file}, "
                "or remove its line there",
            )
        if not line.words:
            return Problem(
                "empty transcript",
                f"utterance {line.id} has an empty transcript: write its words into {line.file}, "
                "or remove the line",
            )
        try:
            header = soundfile.info(path)
        except (OSError, soundfile.SoundFileError) as error:
            return Problem("unreadable audio", f"cannot read {path} ({error}): fetch it again")
        if not header.frames:
            return Problem("unreadable audio", f"{path} is without a sample: fetch it again")
        speaker = "-".join(line.id.split("-")[:2])
        return Row(line.id, header.frames / header.samplerate, str(path), speaker, line.words)

    lines = list(transcribed.values())[:limit]
    with ThreadPoolExecutor(num_threads) as pool:
        work = pool.map(examine, lines)
        examined = list(tqdm(work, total=len(lines), desc=folder.name, unit="utt"))
    problems += [item for item in examined if isinstance(item, Problem)]
    return [item for item in examined if isinstance(item, Row)], problems


def reference_of(audio: Path) -> str | None:
    """The transcript of an audio file in LibriSpeech's layout; None if it has none.

    Args:
        audio: ``<speaker>-<chapter>-<nnnn>.flac`` beside ``<speaker>-<chapter>.trans.txt``.
    """
    chapter = glob.escape(audio.stem.rpartition("-")[0])
    transcripts = _read_transcripts(audio.parent, f"{chapter}.trans.txt")
    return next((line.words for line in transcripts if line.id == audio.stem), None)


def _read_transcripts(folder: Path, files: str = TRANSCRIPTS) -> Iterator[_Line]:
    """All lines of a split's transcripts, by path and then in the file's order."""
    for file in sorted(folder.glob(files)):
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{file} is not UTF-8 text ({error}): fetch it again") from error
        for line in text.splitlines():
            if line.strip():
                name, *words = line.split()
                yield _Line(name, " ".join(words).upper(), file)


def _report(split: str, rows: list[Row], problems: list[Problem], strict: bool) -> None:
    """Logs the utterances that are left out, or raises if they may not be or if none remains."""
    if problems and strict:
        more = f" ({len(problems)} such utterances)" if problems[1:] else ""
        raise DataError(f"{split}: {problems[0].message}{more}")
    for problem in problems:
        logger.warning("%s: %s", split, problem.message)
    if problems:
        kinds = Counter(problem.kind for problem in problems)
        total = len(rows) + len(problems)
        summary = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        logger.warning("%s: %d of %d utterances skipped: %s", split, len(problems), total, summary)
    if not rows:
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
        found = sorted(
            folder.name
            for folder in data_folder.iterdir()
            if folder.is_dir() and any(folder.glob(TRANSCRIPTS))
        )
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


def _digest(folder: Path) -> str:
    """Fingerprint of a split's transcripts, so that a corpus made anew is read anew."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob(TRANSCRIPTS)):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()
