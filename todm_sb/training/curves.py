"""The course of a training run, kept as JSON lines and drawn as a PNG."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from todm_sb.utils.errors import written_by
from todm_sb.utils.files import write_atomic
from todm_sb.utils.text_files import lines, read_text


class TrainingHistory:
    """Appends each epoch's figures to ``history.jsonl`` and redraws ``curves.png``.

    Args:
        folder: where both files live; an earlier history there is continued.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "history.jsonl"
        self.picture = folder / "curves.png"

    def add(
        self,
        epoch: int,
        train: dict[str, float],
        valid: dict[str, float],
        wer_of: dict[str, str] | None = None,
    ) -> None:
        """Adds an epoch; one that is repeated after a restart replaces its first record.

        Args:
            epoch: its number.
            train, valid: figures by name.
            wer_of: what those of ``valid`` are of; a curve is of one thing only.
        """
        records = [r for r in self.read() if r["epoch"] < epoch]
        records.append({"epoch": epoch, "train": train, "valid": valid, "wer_of": wer_of or {}})
        self.write(records)
        self._draw(records)

    def write(self, records: Sequence[dict]) -> None:
        """Replaces all records, of :meth:`read`; draws nothing."""
        write_atomic(self.path, "".join(json.dumps(r) + "\n" for r in records))

    def read(self) -> list[dict]:
        """The records so far, one an epoch: ``epoch``, ``train`` and ``valid``.

        Raises:
            ConfigError: if the file is damaged.
        """
        if not self.path.exists():
            return []
        with written_by("train.py", self.path):
            return [json.loads(line) for line in lines(read_text(self.path))]

    def _draw(self, records: list[dict]) -> None:
        epochs = [r["epoch"] for r in records]
        wer_of = records[-1]["wer_of"]
        # A record of an earlier version does not tell.
        valid = [r["valid"] if r.get("wer_of") == wer_of else {} for r in records]
        figure = Figure(figsize=(10, 4), layout="constrained")
        losses, rates = figure.subplots(1, 2)
        for name in records[-1]["train"]:
            if name not in ("epoch", "lr"):
                values = [r["train"].get(name) for r in records]
                losses.plot(epochs, values, label=f"train {name}")
        for name in records[-1]["valid"]:
            if name in records[-1]["train"]:
                values = [v.get(name) for v in valid]
                losses.plot(epochs, values, label=f"valid {name}", linestyle="--")
        losses.set(xlabel="epoch", ylabel="nats an utterance", yscale="log", title="Losses")
        for name in records[-1]["valid"]:
            if name.startswith("WER"):
                rates.plot(epochs, [v.get(name) for v in valid], label=name)
        rates.set(xlabel="epoch", ylabel="%", ylim=(0, None), title="Word error rate (valid)")
        for axes in (losses, rates):
            axes.grid(alpha=0.3)
            axes.legend(fontsize="small")
        figure.savefig(self.picture, dpi=100)
