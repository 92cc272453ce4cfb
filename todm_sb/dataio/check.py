"""What is wrong with a manifest, found before training rather than in the middle of it.

Each utterance is looked at by its row alone (:func:`row_fault`), then by its audio
(:func:`todm_sb.dataio.audio.audio_fault`). Data preparation, training and ``todm-sb check-data``
share these rules.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from sentencepiece import SentencePieceProcessor

from todm_sb.dataio.audio import AS_RECORDED, SILENT, Conversion, audio_fault
from todm_sb.dataio.faults import (
    EMPTY,
    EVALUATE,
    TRAIN,
    Fault,
    Report,
    Undecodable,
    read_faults,
    write_faults,
)
from todm_sb.dataio.manifest import is_current, mark_current, row_of
from todm_sb.dataio.reading import AS_WRITTEN, Cells, Lines, Reading, read_lines
from todm_sb.dataio.text import words_of_text
from todm_sb.utils.files import sha256_of
from todm_sb.utils.folders import files_digest
from todm_sb.utils.progress import bar

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What an utterance must fulfil to be trained on; None leaves a rule out.

    Of one that is evaluated only sample rate and conversion count.

    Args:
        sample_rate: of the audio, in Hz.
        max_duration: seconds.
        tokenizer: must know all characters of the transcripts.
        n_frames_of: encoder frames of an utterance of so many seconds; a transducer can emit more
            labels than frames, but no transcript of sound audio is that long. Needs the tokenizer.
        conversion: what of the audio is converted when it is loaded.
    """

    sample_rate: int | None = None
    max_duration: float = math.inf
    tokenizer: SentencePieceProcessor | None = None
    n_frames_of: Callable[[float], int] | None = None
    conversion: Conversion = AS_RECORDED


def check_manifest(
    path: str | Path,
    limits: Limits,
    audio: str = "whole",
    num_threads: int = 8,
    record: str | Path | None = None,
    purpose: str = TRAIN,
    reading: Reading = AS_WRITTEN,
) -> Report:
    """Which utterances a manifest has.

    To ``train``, all that fulfil the limits. To ``evaluate``, all that have a transcript, however
    long and whatever their letters; those whose audio cannot be decoded are told apart. What is no
    utterance (no transcript, no id or another's, a cell too many) is left out of both.

    Args:
        path: CSV or JSON; see :mod:`todm_sb.dataio.reading`.
        limits: what each utterance must fulfil.
        audio: ``whole`` decodes every file; ``ends`` reads headers and last samples, which finds
            all but damage in the middle of a file, samples that are not finite, and silence, in a
            fraction of the time; ``none`` opens none.
        num_threads: audio files opened at a time.
        record: a CSV to keep the faults of the audio in. Where it is there, and was made from the
            same manifest and audio files (by size and time), the audio is not opened again.
        purpose: ``train`` or ``evaluate``.
        reading: how the manifest is read.

    Raises:
        DataError: if the manifest itself cannot be read.
    """
    lines = read_lines(path, reading)
    faults = _line_faults(lines, limits)
    lines = _without(lines, faults)
    unsound = _row_faults(lines, limits, purpose)
    if audio != "none":
        sound = _without(lines, unsound)
        unsound += _recorded_audio_faults(path, sound, limits, audio, num_threads, record)
        # Silence is decoded as anything else is.
        unsound = [f for f in unsound if purpose == TRAIN or f.cause != SILENT]
    sound = _without(lines, unsound)
    rows = [row_of(row) for _, row in sound]
    if purpose == TRAIN:
        return Report(str(path), rows, sorted(faults + unsound, key=lambda fault: fault.line))
    cells = dict(lines)
    lost = [
        Undecodable(fault, cells[fault.line]["wrds"], cells[fault.line]["spk_id"])
        for fault in sorted(unsound, key=lambda fault: fault.line)
    ]
    return Report(str(path), rows, faults, lost, purpose)


def _without(lines: Lines, faults: Iterable[Fault]) -> Lines:
    bad = {fault.line for fault in faults}
    return [(line, row) for line, row in lines if line not in bad]


def _line_faults(lines: Lines, limits: Limits) -> list[Fault]:
    """What is no utterance, whatever it would be for."""
    faults: list[Fault] = []
    first_line: dict[str, int] = {}
    for line, row in lines:
        found = line_fault(row, limits)
        if found is None and row["ID"] in first_line:
            found = ("duplicate id", f"first at line {first_line[row['ID']]}")
        if found is None:
            first_line[row["ID"]] = line
        else:
            faults.append(Fault(line, row["ID"], *found))
    return faults


def line_fault(row: Cells, limits: Limits) -> tuple[str, str] | None:
    """Cause and detail of why a row is no utterance; None if it is one.

    Args:
        row: the cells, by column.
        limits: whose tokenizer it is to be used with.
    """
    if None in row:
        return "too many cells", f"{row[None][0]!r} follows the last column"
    if not row["ID"].strip():
        return "no id", ""
    words, tokenizer = row["wrds"], limits.tokenizer
    if not (words_of_text(tokenizer, words) if tokenizer else words.split()):
        return EMPTY, ""
    return None


def _row_faults(lines: Lines, limits: Limits, purpose: str) -> list[Fault]:
    found = ((line, row["ID"], row_fault(row, limits, purpose)) for line, row in lines)
    return [Fault(line, name, *fault) for line, name, fault in found if fault is not None]


def row_fault(row: Cells, limits: Limits, purpose: str = TRAIN) -> tuple[str, str] | None:
    """Cause and detail of why an utterance cannot be used, its audio unseen; None if it can.

    Args:
        row: the cells, by column.
        limits: what it must fulfil.
        purpose: ``train`` or ``evaluate``.
    """
    if not row["wav"].strip():
        return "no path of audio", ""
    try:
        duration = float(row["duration"])
    except ValueError:
        return "duration is not a number", repr(row["duration"])
    if not math.isfinite(duration):
        return "duration is not a number", repr(row["duration"])
    if duration <= 0:
        return "zero length", f"{duration:g} s"
    if found := _part_fault(row["start"], row["stop"]):
        return found
    if purpose == EVALUATE:
        return None
    if duration > limits.max_duration:
        return f"longer than max_duration = {limits.max_duration:g} s", f"{duration:g} s"
    return _transcript_fault(row["wrds"], duration, limits)


def _part_fault(start: str, stop: str) -> tuple[str, str] | None:
    if not start.strip() and not stop.strip():
        return None
    shown = f"{start.strip() or 'none'} and {stop.strip() or 'none'}"
    try:
        first, last = float(start), float(stop)
    except ValueError:
        return "start or stop is not a number", shown
    if not (math.isfinite(first) and math.isfinite(last)) or first < 0:
        return "start or stop is not a number", f"{shown}: from 0 on"
    return None if first < last else ("stop is not after start", shown)


def _transcript_fault(words: str, duration: float, limits: Limits) -> tuple[str, str] | None:
    if limits.tokenizer is None:
        return None
    labels, unknown = limits.tokenizer.encode_as_ids(words), limits.tokenizer.unk_id()
    if unknown in labels:
        pieces = limits.tokenizer.encode_as_pieces(words)
        piece = pieces[labels.index(unknown)]
        return "transcript with characters that the tokenizer does not know", repr(piece)
    if limits.n_frames_of is not None and len(labels) > limits.n_frames_of(duration):
        detail = f"{len(labels)} labels, {limits.n_frames_of(duration)} frames"
        return "transcript with more labels than the audio has frames", detail
    return None


def _audio_faults(lines: Lines, limits: Limits, whole: bool, num_threads: int) -> list[Fault]:
    def examine(item: tuple[int, Cells]) -> Fault | None:
        line, row = item
        utterance = row_of(row)
        found = audio_fault(
            utterance.wav,
            utterance.duration,
            limits.sample_rate,
            whole,
            limits.conversion,
            utterance.part,
        )
        return found and Fault(line, row["ID"], *found)

    with ThreadPoolExecutor(num_threads) as pool:
        work = bar(pool.map(examine, lines), desc="audio", total=len(lines), unit="file")
        return [fault for fault in work if fault is not None]


def _recorded_audio_faults(
    path: str | Path,
    lines: Lines,
    limits: Limits,
    audio: str,
    num_threads: int,
    record: str | Path | None,
) -> list[Fault]:
    """As :func:`_audio_faults`, from the record where there is one of the same files."""
    if record is None:
        return _audio_faults(lines, limits, audio == "whole", num_threads)
    made_from = {
        "manifest": sha256_of(path),
        "lines": hashlib.sha256(repr([line for line, _ in lines]).encode()).hexdigest(),
        "files": files_digest(list(dict.fromkeys(row["wav"] for _, row in lines)), num_threads),
        "sample_rate": limits.sample_rate,
        **asdict(limits.conversion),
        "audio": audio,
    }
    if is_current(record, made_from):
        faults = read_faults(record)
        if faults:
            logger.info("%d audio faults as in %s; to check again, remove it", len(faults), record)
        return faults
    faults = _audio_faults(lines, limits, audio == "whole", num_threads)
    write_faults(record, faults)
    mark_current(record, made_from)
    return faults
