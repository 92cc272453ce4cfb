"""What is wrong with a manifest, found before training rather than in the middle of it.

Each utterance is looked at by its row alone (:func:`row_fault`), then by its audio
(:func:`audio_fault`). Data preparation, training and ``todm-sb check-data`` share these rules.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from sentencepiece import SentencePieceProcessor

from todm_sb.dataio.manifest import Row, is_current, mark_current, read_lines, write_table
from todm_sb.dataio.text import words_of_text
from todm_sb.errors import DataError
from todm_sb.utils.files import sha256_of
from todm_sb.utils.folders import files_digest
from todm_sb.utils.progress import bar

logger = logging.getLogger(__name__)

# What utterances are for: they are trained on, or error rates are measured on them.
TRAIN, EVALUATE = "train", "evaluate"
PURPOSES = (TRAIN, EVALUATE)

# Seconds by which a manifest and an audio file may differ: the durations of some manifests are
# rounded to hundredths.
TOLERANCE = 0.02

SILENT = "silent audio"

# Samples decoded at a time.
BLOCK = 1 << 16


@dataclass(frozen=True)
class Limits:
    """What an utterance must fulfil to be trained on; None leaves a rule out.

    Of one that is evaluated only the sample rate counts.

    Args:
        sample_rate: of the audio, in Hz.
        max_duration: seconds.
        tokenizer: must know all characters of the transcripts.
        n_frames_of: encoder frames of an utterance of so many seconds; a transducer can emit more
            labels than frames, but no transcript of sound audio is that long. Needs the tokenizer.
    """

    sample_rate: int | None = None
    max_duration: float = math.inf
    tokenizer: SentencePieceProcessor | None = None
    n_frames_of: Callable[[float], int] | None = None


@dataclass(frozen=True)
class Fault:
    """Why an utterance cannot be used.

    Args:
        line: of the manifest; the header is line 1.
        id: of the utterance.
        cause: its kind, to count by.
        detail: what was found.
    """

    line: int
    id: str
    cause: str
    detail: str = ""

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"line {self.line}: {self.id}: {self.cause}{detail}"


@dataclass(frozen=True)
class Undecodable:
    """An utterance to be evaluated whose audio cannot be decoded: all its words count as deleted.

    Args:
        fault: why it cannot.
        words: its transcript.
    """

    fault: Fault
    words: str


@dataclass(frozen=True)
class Report:
    """Which utterances a manifest has.

    Args:
        path: the manifest.
        rows: the utterances that are trained on, or decoded, in the manifest's order.
        faults: what is left out, in the manifest's order.
        undecodable: to be evaluated all the same, in the manifest's order.
        purpose: ``train`` or ``evaluate``.
    """

    path: str
    rows: list[Row]
    faults: list[Fault]
    undecodable: list[Undecodable] = field(default_factory=list)
    purpose: str = TRAIN

    @property
    def all_faults(self) -> list[Fault]:
        """Of what is left out and of what cannot be decoded, in the manifest's order."""
        faults = [*self.faults, *(lost.fault for lost in self.undecodable)]
        return sorted(faults, key=lambda fault: fault.line)

    @property
    def left_out(self) -> dict[str, int]:
        """What is left out: the number for each cause, the most frequent first."""
        return _causes(self.faults)

    def summary(self) -> str:
        """One line: utterances, hours, and the number left out, or not decoded, for each cause."""
        hours = sum(row.duration for row in self.rows) / 3600
        total = len(self.rows) + len(self.faults) + len(self.undecodable)
        can = "used" if self.purpose == TRAIN else "decoded"
        found = f"{len(self.rows)} of {total} utterances can be {can}, {hours:.2f} hours"
        return "; ".join([f"{self.path}: {found}", *self._losses()])

    def require(self, strict: bool = False) -> Report:
        """This report, unless there is nothing to train on, or to decode.

        Args:
            strict: refuse a single fault.

        Raises:
            DataError: if no utterance can be used or, with ``strict``, if one cannot.
        """
        faults = self.all_faults
        if strict and faults:
            raise DataError(
                f"{self.summary()}; the first at {faults[0]}: mend it, or leave out --strict"
            )
        if not self.rows:
            causes = ", ".join(dict.fromkeys(fault.cause for fault in faults))
            can = "used" if self.purpose == TRAIN else "decoded"
            raise DataError(
                f"{self.path}: no utterance can be {can} ({causes or 'the manifest is empty'})"
            )
        return self

    def log(self) -> None:
        """Writes one line a cause to the log, and each fault on the debug level."""
        for loss in self._losses():
            logger.warning("%s: %s", self.path, loss)
        for fault in self.all_faults:
            logger.debug("%s: %s", self.path, fault)

    def _losses(self) -> list[str]:
        lost = _causes(lost.fault for lost in self.undecodable)
        return [
            *(f"{n} cannot be decoded, their words count as deleted: {c}" for c, n in lost.items()),
            *(f"{n} left out: {cause}" for cause, n in self.left_out.items()),
        ]


def _causes(faults: Iterable[Fault]) -> dict[str, int]:
    return dict(Counter(fault.cause for fault in faults).most_common())


def check_manifest(
    path: str | Path,
    limits: Limits,
    audio: str = "whole",
    num_threads: int = 8,
    record: str | Path | None = None,
    purpose: str = TRAIN,
) -> Report:
    """Which utterances a manifest has.

    To ``train``, all that fulfil the limits. To ``evaluate``, all that have a transcript, however
    long and whatever their letters; those whose audio cannot be decoded are told apart. What is no
    utterance (no transcript, no id or another's, a cell too many) is left out of both.

    Args:
        path: CSV with the columns ``ID,duration,wav,spk_id,wrds``.
        limits: what each utterance must fulfil.
        audio: ``whole`` decodes every file; ``ends`` reads headers and last samples, which finds
            all but damage in the middle of a file, samples that are not finite, and silence, in a
            fraction of the time; ``none`` opens none.
        num_threads: audio files opened at a time.
        record: a CSV to keep the faults of the audio in. Where it is there, and was made from the
            same manifest and audio files (by size and time), the audio is not opened again.
        purpose: ``train`` or ``evaluate``.

    Raises:
        DataError: if the manifest itself cannot be read.
    """
    lines = read_lines(path)
    faults = _line_faults(lines, limits)
    lines = _without(lines, faults)
    unsound = _row_faults(lines, limits, purpose)
    if audio != "none":
        sound = _without(lines, unsound)
        unsound += _recorded_audio_faults(path, sound, limits, audio, num_threads, record)
        # Silence is decoded as anything else is.
        unsound = [f for f in unsound if purpose == TRAIN or f.cause != SILENT]
    sound = _without(lines, unsound)
    rows = [Row(**{**row, "duration": float(row["duration"])}) for _, row in sound]
    if purpose == TRAIN:
        return Report(str(path), rows, sorted(faults + unsound, key=lambda fault: fault.line))
    words = {line: row["wrds"] for line, row in lines}
    lost = [Undecodable(f, words[f.line]) for f in sorted(unsound, key=lambda fault: fault.line)]
    return Report(str(path), rows, faults, lost, purpose)


Lines = list[tuple[int, dict[str | None, Any]]]


def _without(lines: Lines, faults: Iterable[Fault]) -> Lines:
    bad = {fault.line for fault in faults}
    return [(line, row) for line, row in lines if line not in bad]


def _line_faults(lines: Lines, limits: Limits) -> list[Fault]:
    """What is no utterance, whatever it would be for."""
    faults, first_line = [], {}
    for line, row in lines:
        found = line_fault(row, limits)
        if found is None and row["ID"] in first_line:
            found = ("duplicate id", f"first at line {first_line[row['ID']]}")
        if found is None:
            first_line[row["ID"]] = line
        else:
            faults.append(Fault(line, row["ID"], *found))
    return faults


def line_fault(row: dict[str | None, Any], limits: Limits) -> tuple[str, str] | None:
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
        return "empty transcript", ""
    return None


def _row_faults(lines: Lines, limits: Limits, purpose: str) -> list[Fault]:
    found = ((line, row["ID"], row_fault(row, limits, purpose)) for line, row in lines)
    return [Fault(line, name, *fault) for line, name, fault in found if fault is not None]


def row_fault(
    row: dict[str | None, Any], limits: Limits, purpose: str = TRAIN
) -> tuple[str, str] | None:
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
    if purpose == EVALUATE:
        return None
    if duration > limits.max_duration:
        return f"longer than max_duration = {limits.max_duration:g} s", f"{duration:g} s"
    return _transcript_fault(row["wrds"], duration, limits)


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


def read_audio(path: str, duration: float, sample_rate: int | None = None) -> np.ndarray:
    """Samples of an utterance, by the rules of :func:`audio_fault`.

    Raises:
        DataError: if it cannot be used (any more).
    """
    found, samples = None, np.empty(0, "float32")
    try:
        with soundfile.SoundFile(path) as file:
            found = _header_fault(file, path, duration, sample_rate)
            if found is None:
                expected = file.frames
                samples = file.read(dtype="float32")
                if len(samples) < expected:
                    found = "truncated audio", f"{path}: {len(samples)} of {expected} samples"
                elif not np.isfinite(samples).all():
                    found = "audio with samples that are not finite numbers", path
    except (OSError, soundfile.SoundFileError) as error:
        found = "unreadable audio", f"{path}: {error}"
    if found is not None:
        raise DataError(f"{found[0]} ({found[1]})")
    return samples


def audio_fault(
    path: str, duration: float, sample_rate: int | None = None, whole: bool = True
) -> tuple[str, str] | None:
    """Cause and detail of what is wrong with an audio file; None if nothing is.

    Args:
        path: the file.
        duration: seconds that the manifest gives it.
        sample_rate: that it must have, in Hz; None for any.
        whole: decode all of it, not only its end.
    """
    try:
        if not Path(path).exists():
            return "missing file", path
        with soundfile.SoundFile(path) as file:
            return _header_fault(file, path, duration, sample_rate) or (
                _samples_fault(file, path) if whole else _end_fault(file, path)
            )
    except (OSError, soundfile.SoundFileError) as error:
        return "unreadable audio", f"{path}: {error}"


def _header_fault(
    file: soundfile.SoundFile, path: str, duration: float, sample_rate: int | None
) -> tuple[str, str] | None:
    if sample_rate is not None and file.samplerate != sample_rate:
        return "wrong sample rate", f"{path}: {file.samplerate} Hz, not {sample_rate} Hz"
    if file.channels != 1:
        return "more than one channel", f"{path}: {file.channels} channels"
    if file.frames == 0:
        return "zero length", path
    actual = file.frames / file.samplerate
    if abs(actual - duration) > TOLERANCE:
        cause = "audio of another length than in the manifest (truncated, or changed since)"
        return cause, f"{path}: {actual:.2f} s, not {duration:.2f} s"
    return None


def _end_fault(file: soundfile.SoundFile, path: str) -> tuple[str, str] | None:
    file.seek(file.frames - 1)
    return None if len(file.read(1)) else ("truncated audio", path)


def _samples_fault(file: soundfile.SoundFile, path: str) -> tuple[str, str] | None:
    expected, read, peak = file.frames, 0, 0.0
    for block in file.blocks(BLOCK, dtype="float32"):
        read += len(block)
        peak = max(peak, float(np.abs(block).max()))
        if not np.isfinite(block).all():
            return "audio with samples that are not finite numbers", path
    if read < expected:
        return "truncated audio", f"{path}: {read} of {expected} samples"
    return None if peak > 0 else (SILENT, path)


def _audio_faults(lines: Lines, limits: Limits, whole: bool, num_threads: int) -> list[Fault]:
    def examine(item: tuple[int, dict[str | None, Any]]) -> Fault | None:
        line, row = item
        found = audio_fault(row["wav"], float(row["duration"]), limits.sample_rate, whole)
        return found and Fault(line, row["ID"], *found)

    lines = list(lines)
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
        "files": files_digest([row["wav"] for _, row in lines], num_threads),
        "sample_rate": limits.sample_rate,
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


def write_faults(path: str | Path, faults: Iterable[Fault]) -> None:
    """Writes faults as a CSV ``line,id,cause,detail``."""
    write_table(path, Fault, faults)


def read_faults(path: str | Path) -> list[Fault]:
    """Reads what :func:`write_faults` wrote."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        return [Fault(**{**row, "line": int(row["line"])}) for row in csv.DictReader(file)]
