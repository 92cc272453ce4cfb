"""What is wrong with a manifest, found before training rather than in the middle of it.

Each utterance is looked at by its row alone (:func:`row_fault`), then by its audio
(:func:`audio_fault`). Data preparation, training and ``todm-sb check-data`` share these rules.
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import soundfile
from sentencepiece import SentencePieceProcessor

from todm_sb.dataio.manifest import Row, is_current, mark_current, write_atomic
from todm_sb.dataio.text import words_of_text
from todm_sb.errors import DataError
from todm_sb.utils.folders import files_digest
from todm_sb.utils.progress import bar

logger = logging.getLogger(__name__)

# SpeechBrain's tokenizers give unknown pieces this id; the transducer uses it for blank.
UNKNOWN = 0

# Seconds by which a manifest and an audio file may differ: the durations of some manifests are
# rounded to hundredths.
TOLERANCE = 0.02

# Samples decoded at a time.
BLOCK = 1 << 16


@dataclass(frozen=True)
class Limits:
    """What an utterance must fulfil to be trained on; None leaves a rule out.

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
class Report:
    """What was found in a manifest.

    Args:
        path: the manifest.
        rows: the utterances that can be used, in the manifest's order.
        faults: the others, in the manifest's order.
    """

    path: str
    rows: list[Row]
    faults: list[Fault]

    def summary(self) -> str:
        """One line: utterances, hours, and the number left out for each cause."""
        hours = sum(row.duration for row in self.rows) / 3600
        total = len(self.rows) + len(self.faults)
        line = f"{self.path}: {len(self.rows)} of {total} utterances can be used, {hours:.2f} hours"
        causes = Counter(fault.cause for fault in self.faults).most_common()
        return line + "".join(f"; {count} left out: {cause}" for cause, count in causes)

    def require(self, strict: bool = False) -> Report:
        """This report, unless training must not start from it.

        Args:
            strict: refuse a single fault.

        Raises:
            DataError: if no utterance can be used or, with ``strict``, if one cannot.
        """
        if strict and self.faults:
            raise DataError(
                f"{self.summary()}; the first at {self.faults[0]}: mend it, or leave out --strict"
            )
        if not self.rows:
            causes = ", ".join(dict.fromkeys(fault.cause for fault in self.faults))
            raise DataError(
                f"{self.path}: no utterance can be used ({causes or 'the manifest is empty'})"
            )
        return self

    def log(self) -> None:
        """Writes one line a cause to the log, and each fault on the debug level."""
        for cause, count in Counter(fault.cause for fault in self.faults).items():
            logger.warning("%s: %d utterances left out: %s", self.path, count, cause)
        for fault in self.faults:
            logger.debug("%s: %s", self.path, fault)


def check_manifest(
    path: str | Path,
    limits: Limits,
    audio: str = "whole",
    num_threads: int = 8,
    record: str | Path | None = None,
) -> Report:
    """Checks all utterances of a manifest.

    Args:
        path: CSV with the columns ``ID,duration,wav,spk_id,wrds``.
        limits: what each utterance must fulfil.
        audio: ``whole`` decodes every file; ``ends`` reads headers and last samples, which finds
            all but damage in the middle of a file, samples that are not finite, and silence, in a
            fraction of the time; ``none`` opens none.
        num_threads: audio files opened at a time.
        record: a CSV to keep the faults of the audio in. Where it is there, and was made from the
            same manifest and audio files (by size and time), the audio is not opened again.

    Raises:
        DataError: if the manifest itself cannot be read.
    """
    lines = read_lines(path)
    faults = _row_faults(lines, limits)
    if audio != "none":
        bad = {fault.line for fault in faults}
        sound = [(line, row) for line, row in lines if line not in bad]
        faults += _recorded_audio_faults(path, sound, limits, audio, num_threads, record)
    faults.sort(key=lambda fault: fault.line)
    bad = {fault.line for fault in faults}
    rows = [Row(**{**row, "duration": float(row["duration"])}) for n, row in lines if n not in bad]
    return Report(str(path), rows, faults)


def read_lines(path: str | Path) -> list[tuple[int, dict[str, str]]]:
    """The rows of a manifest as text, each with its line number.

    Raises:
        DataError: if there is no such file, or it is no CSV with the columns of
            :class:`todm_sb.dataio.manifest.Row`.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"manifest {path} does not exist: run the data preparation first") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"manifest {path} cannot be read as UTF-8 text: {error}") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), restval="", skipinitialspace=True)
    try:
        missing = [f.name for f in fields(Row) if f.name not in (reader.fieldnames or [])]
        if missing:
            raise DataError(f"manifest {path} has no column '{missing[0]}': prepare the data again")
        # A key of None holds the cells beyond the header's.
        names = [*(f.name for f in fields(Row)), None]
        return [(reader.line_num, {k: row[k] for k in names if k in row}) for row in reader]
    except csv.Error as error:
        raise DataError(f"manifest {path}, line {reader.line_num}: {error}") from None


def _row_faults(lines: list[tuple[int, dict[str, str]]], limits: Limits) -> list[Fault]:
    faults, first_line = [], {}
    for line, row in lines:
        found = row_fault(row, limits)
        if found is None and row["ID"] in first_line:
            found = ("duplicate id", f"first at line {first_line[row['ID']]}")
        first_line.setdefault(row["ID"], line)
        if found is not None:
            faults.append(Fault(line, row["ID"], *found))
    return faults


def row_fault(row: dict[str, str], limits: Limits) -> tuple[str, str] | None:
    """Cause and detail of what is wrong with a row, its audio unseen; None if nothing is.

    Args:
        row: the cells, by column.
        limits: what it must fulfil.
    """
    if None in row:
        return "too many cells", f"{row[None][0]!r} follows the last column"
    if not row["ID"].strip():
        return "no id", ""
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
    if duration > limits.max_duration:
        return f"longer than max_duration = {limits.max_duration:g} s", f"{duration:g} s"
    return _transcript_fault(row["wrds"], duration, limits)


def _transcript_fault(words: str, duration: float, limits: Limits) -> tuple[str, str] | None:
    if not (words_of_text(limits.tokenizer, words) if limits.tokenizer else words.split()):
        return "empty transcript", ""
    if limits.tokenizer is None:
        return None
    labels = limits.tokenizer.encode_as_ids(words)
    if UNKNOWN in labels:
        pieces = limits.tokenizer.encode_as_pieces(words)
        unknown = [p for p, label in zip(pieces, labels, strict=True) if label == UNKNOWN]
        return "transcript with characters that the tokenizer does not know", repr(unknown[0])
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
    return None if peak > 0 else ("silent audio", path)


def _audio_faults(
    lines: Iterable[tuple[int, dict[str, str]]], limits: Limits, whole: bool, num_threads: int
) -> list[Fault]:
    def examine(item: tuple[int, dict[str, str]]) -> Fault | None:
        line, row = item
        found = audio_fault(row["wav"], float(row["duration"]), limits.sample_rate, whole)
        return found and Fault(line, row["ID"], *found)

    lines = list(lines)
    with ThreadPoolExecutor(num_threads) as pool:
        work = bar(pool.map(examine, lines), desc="audio", total=len(lines), unit="file")
        return [fault for fault in work if fault is not None]


def _recorded_audio_faults(
    path: str | Path,
    lines: list[tuple[int, dict[str, str]]],
    limits: Limits,
    audio: str,
    num_threads: int,
    record: str | Path | None,
) -> list[Fault]:
    """As :func:`_audio_faults`, from the record where there is one of the same files."""
    if record is None:
        return _audio_faults(lines, limits, audio == "whole", num_threads)
    made_from = {
        "manifest": hashlib.sha256(Path(path).read_bytes()).hexdigest(),
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
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(Fault))
    writer.writerows((f.line, f.id, f.cause, f.detail) for f in faults)
    write_atomic(path, text.getvalue())


def read_faults(path: str | Path) -> list[Fault]:
    """Reads what :func:`write_faults` wrote."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        return [Fault(**{**row, "line": int(row["line"])}) for row in csv.DictReader(file)]
