"""SpeechBrain manifests of LibriSpeech, or of any corpus in its folder layout.

:mod:`todm_sb.dataio.chapters` describes the layout.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import soundfile

from todm_sb.dataio.chapters import (
    AUDIO,
    Chapter,
    Line,
    find_chapters,
    is_split,
    misplaced_audio,
    reference_of,
    transcripts_digest,
    unique_ids,
)
from todm_sb.dataio.manifest import (
    Row,
    forget,
    is_current,
    mark_current,
    read_csv,
    refuse_changed,
    write_csv,
)
from todm_sb.errors import ConfigError, DataError, quoted
from todm_sb.utils.folders import files_digest, is_text, subfolders
from todm_sb.utils.progress import bar

__all__ = ["LETTER_CASES", "Problem", "prepare_librispeech", "read_split", "reference_of"]

logger = logging.getLogger(__name__)

# What may be done to the letters of a transcript. Changing their case merges what has one form in
# the other case: dotted and dotless i, ss and ß.
LETTER_CASES = {"keep": str, "upper": str.upper, "lower": str.lower}


@dataclass(frozen=True)
class Problem:
    """Why an utterance cannot be used.

    Args:
        kind: for counting, such as ``empty transcript``.
        message: the utterance or file, and the mend.
    """

    kind: str
    message: str


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

    Nothing is done over again for a CSV that is there already and comes from the same options,
    the same transcripts, and audio files of the same names, sizes and times of change.

    An utterance keeps its id; where another one in the split has the same, both are named
    ``<speaker>-<chapter>-<id>``, and where another split of `merge_lst` has it, ``<split>-<id>`` in
    the CSV of several. Words are what stands between ASCII white space.

    What cannot be trained on is left out of the CSVs of training splits. Those of dev and test
    splits have all that is there, of duration 0 where the audio cannot be opened and without words
    where it is not known which: error rates are of it, or say that they are not.

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
            utterances are logged.
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
    if letter_case not in tuple(LETTER_CASES):
        raise ConfigError(
            f"letter_case is {quoted(letter_case)}: make it {', '.join(LETTER_CASES)}"
        )
    data_folder, save_folder = Path(data_folder).resolve(), Path(save_folder)
    splits = list(dict.fromkeys([*tr_splits, *dev_splits, *te_splits]))
    scored = {*dev_splits, *te_splits}
    limits = _limits(splits, select_n_sentences)
    merged_csv = _merged_csv(save_folder, splits, merge_lst, merge_name)
    _check_splits(data_folder, splits)

    csvs = {split: save_folder / f"{split}.csv" for split in splits}
    for path in (*csvs.values(), *([merged_csv] if merged_csv else [])):
        refuse_changed(path)

    made_from: dict[str, dict] = {}
    for split, path in csvs.items():
        chapters = find_chapters(data_folder / split, num_threads)
        misplaced = misplaced_audio(data_folder / split, chapters)
        audio = [*misplaced, *(file for chapter in chapters for file in chapter.audio.values())]
        made_from[split] = {
            "folder": str(data_folder / split),
            "transcripts": transcripts_digest(chapters),
            "audio": files_digest(audio, num_threads),
            "select_n_sentences": limits[split],
            "letter_case": letter_case,
            "all": split in scored,
        }
        if is_current(path, made_from[split]):
            continue
        rows, problems = read_split(
            split, chapters, limits[split], num_threads, letter_case, split in scored
        )
        problems = [*map(_misplaced, misplaced), *problems]
        _report(split, rows, problems, strict)
        forget(path)
        write_csv(path, rows)
        if not problems:  # else the next call looks again whether they were mended
            mark_current(path, made_from[split])

    if merged_csv is not None:
        options = {"merged": [made_from[split] for split in merge_lst]}
        if not is_current(merged_csv, options):
            rows = _merged({split: read_csv(csvs[split]) for split in merge_lst})
            forget(merged_csv)
            write_csv(merged_csv, rows)
            if all(is_current(csvs[split], made_from[split]) for split in merge_lst):
                mark_current(merged_csv, options)


def read_split(
    split: str,
    chapters: Sequence[Chapter],
    limit: int | None = None,
    num_threads: int = 8,
    letter_case: str = "keep",
    keep_all: bool = False,
) -> tuple[list[Row], list[Problem]]:
    """Reads the transcripts of a split and the headers of its audio files.

    Args:
        split: its name.
        chapters: of the split.
        limit: if given, look at no more than so many transcribed utterances.
        num_threads: audio files opened at a time.
        letter_case: one of `LETTER_CASES`.
        keep_all: return those with a problem, too, of duration 0.

    Returns:
        The usable utterances in the order of the transcripts' paths, and what is wrong with the
        others.

    Raises:
        DataError: if a transcript is not UTF-8, or two utterances cannot be told apart.
    """
    spoken: list[tuple[Chapter, Line]] = []
    wordless: list[tuple[Chapter, Line]] = []  # nobody knows what is said in them
    problems: list[Problem] = []
    for chapter in chapters:
        found, contradictions = chapter.lines()
        spoken += [(chapter, line) for line in found]
        known = {line.id for line in found} | {line.id for line, _ in contradictions}
        unheard = {name: path for name, path in chapter.audio.items() if name not in known}
        wordless += [(chapter, replace(line, words="")) for line, _ in contradictions]
        wordless += [(chapter, Line(name, "", path)) for name, path in unheard.items()]
        problems += [_contradiction(*lines) for lines in contradictions]
        problems += [_untranscribed(path) for path in unheard.values()]
    if not keep_all:
        wordless = []
    ids = unique_ids(
        [
            (line.id, f"{chapter.name}-{line.id}", _path_of(chapter, line))
            for chapter, line in (*spoken, *wordless)
        ]
    )
    renamed = sum(name != line.id for name, (_, line) in zip(ids, spoken, strict=False))
    if renamed:
        logger.info(
            "%s: %d utterances have the id of another one, and are named by speaker and chapter",
            split,
            renamed,
        )

    def examine(item: tuple[Chapter, Line]) -> float | Problem:
        return _examine(*item)

    work = spoken[:limit]
    with ThreadPoolExecutor(num_threads) as pool:
        examined = list(bar(pool.map(examine, work), total=len(work), desc=split, unit="utt"))
    problems += [found for found in examined if isinstance(found, Problem)]
    change = LETTER_CASES[letter_case]
    rows = []
    for name, (chapter, line), found in zip(ids, work, examined, strict=False):
        if keep_all or not isinstance(found, Problem):
            seconds = 0.0 if isinstance(found, Problem) else found
            rows.append(_row(name, seconds, chapter, replace(line, words=change(line.words))))
    rows += [_row(n, 0.0, *item) for n, item in zip(ids[len(spoken) :], wordless, strict=True)]
    return rows, problems


def _path_of(chapter: Chapter, line: Line) -> Path:
    """Where the audio of a line is, or should be."""
    return chapter.audio.get(line.id, chapter.folder / f"{line.id}{AUDIO}")


def _row(name: str, seconds: float, chapter: Chapter, line: Line) -> Row:
    """Names that are not UTF-8 are escaped in it: there is no such file, but it can be written."""
    path = _path_of(chapter, line)
    name, wav, speaker = (
        x.encode(errors="backslashreplace").decode() for x in (name, str(path), chapter.name)
    )
    return Row(name, seconds, wav, speaker, line.words)


def _examine(chapter: Chapter, line: Line) -> float | Problem:
    """Seconds of an utterance, if it has words and its audio is there and can be opened."""
    path = chapter.audio.get(line.id)
    if path is None:
        return Problem(
            "transcript without audio",
            f"utterance {line.id} has no audio: put {line.id}{AUDIO} beside {line.file}, "
            "or remove its line there",
        )
    if not line.words:
        return Problem(
            "empty transcript",
            f"utterance {line.id} has an empty transcript: write its words into {line.file}, "
            "or remove the line",
        )
    if not is_text(path):
        mend = "rename the file or folder"
        return Problem("name that is no text", f"{_shown(path)} is not UTF-8: {mend}")
    try:
        header = soundfile.info(path)
    except (OSError, soundfile.SoundFileError) as error:
        return Problem("unreadable audio", f"cannot read {path} ({error}): fetch it again")
    if not header.frames:
        return Problem("unreadable audio", f"{path} is without a sample: fetch it again")
    return header.frames / header.samplerate


def _untranscribed(path: Path) -> Problem:
    return Problem(
        "audio without transcript",
        f"{_shown(path)} has no transcript: add its line to the .trans.txt beside it, or remove it",
    )


def _misplaced(path: Path) -> Problem:
    return Problem(
        "audio in no chapter",
        f"{_shown(path)} is not in <split>/<speaker>/<chapter>/: move it there with its transcript",
    )


def _shown(path: Path) -> str:
    return str(path) if is_text(path) else quoted(str(path), 1000)


def _contradiction(one: Line, other: Line) -> Problem:
    where = f"{one.file}" if one.file == other.file else f"{one.file} and {other.file}"
    return Problem(
        "contradictory transcripts",
        f"utterance {one.id} has two transcripts, {quoted(one.words)} and {quoted(other.words)}, "
        f"in {where}: remove one",
    )


def _merged(parts: dict[str, list[Row]]) -> list[Row]:
    """The utterances of several splits."""
    rows = [(split, row) for split, rows in parts.items() for row in rows]
    ids = unique_ids([(row.ID, f"{split}-{row.ID}", row.wav) for split, row in rows])
    return [replace(row, ID=name) for name, (_, row) in zip(ids, rows, strict=True)]


def _report(split: str, rows: list[Row], problems: list[Problem], strict: bool) -> None:
    """Logs what is wrong with utterances, or raises if nothing may be or if none is sound."""
    sound = [row for row in rows if row.duration]
    if problems and strict:
        more = f" ({len(problems)} such utterances)" if problems[1:] else ""
        raise DataError(f"{split}: {problems[0].message}{more}")
    for problem in problems:
        logger.warning("%s: %s", split, problem.message)
    if problems:
        kinds = Counter(problem.kind for problem in problems)
        total = len(sound) + len(problems)
        summary = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        done = "skipped" if rows == sound else "not sound"
        logger.warning("%s: %d of %d utterances %s: %s", split, len(problems), total, done, summary)
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
