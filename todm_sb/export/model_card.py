"""The model card of an export: ``README.md``, with the metadata that the Hugging Face Hub reads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from todm_sb.bundle.manifest import BundledSubnet
from todm_sb.export.measured import Rates, Scored
from todm_sb.training import provenance
from todm_sb.training.adaptation import RECORD as BEGUN_FROM
from todm_sb.training.curves import TrainingHistory
from todm_sb.utils.files import read_record
from todm_sb.utils.tables import scored_text, table_of

TASK = "automatic-speech-recognition"
PACKAGES = ("todm_sb", "speechbrain", "torch")
# How each format is used; a name stands for this folder, or for a repository of the Hub.
USES = {
    "bundle": """\
```python
from todm_sb import SubnetASR

asr = SubnetASR.from_bundle("{name}"{choice})  # this folder, or org/{name} on the Hub
print(asr.transcribe_file("speech.wav"))
```

    todm-sb transcribe speech.wav --model {name}{option}

It is a bundle: data that can run no code.""",
    "speechbrain": """\
```python
from todm_sb import SubnetASR

asr = SubnetASR.{loader}("{name}"{choice})  # this folder, or org/{name} on the Hub
print(asr.transcribe_file("speech.wav"))
```

Its YAML can run code, as any of SpeechBrain's: load it if you trust where it is from.""",
    "onnx": """\
Neither PyTorch nor SpeechBrain is needed:

    pip install --no-deps /path/to/todm_sb && pip install -r requirements.txt
    todm-sb transcribe speech.wav --model {name}

```python
from todm_sb.inference import OnnxASR

print(OnnxASR("{name}").transcribe_file("speech.wav"))  # this folder, or org/{name} on the Hub
```""",
    "web": """\
    todm-sb serve {name}

serves a page that transcribes in the browser. Each subnet has a folder, with a folder for each
precision.""",
}

IN_FLOAT = "Error rates that are not named int8 are those of the same network in float32."


@dataclass(frozen=True)
class CardFacts:
    """What a card tells.

    Args:
        name: of the model.
        form: of the export, as ``todm-sb export --format`` has it.
        network: what it is, in a few words.
        subnets: those that it holds.
        rates: error rates in percent by data set, of these subnets among others.
        scored: what these are of.
        family: whether a subnet is chosen when it is loaded.
        language: as the Hub names it, or some.
        license: as the Hub names it.
        dataset: what the speech is from, if that has a name.
        training: lines that tell what it was trained on, and how.
    """

    name: str
    form: str
    network: str
    subnets: Sequence[BundledSubnet]
    rates: Mapping[str, Rates]
    scored: Mapping[str, Scored]
    family: bool = False
    language: str | list[str] | None = None
    license: str | None = None
    dataset: str | None = None
    training: Sequence[str] = field(default_factory=list)


def model_card(facts: CardFacts) -> str:
    """The text of a model card."""
    metadata = ModelCardData(
        language=facts.language,
        license=facts.license,
        library_name="speechbrain" if facts.form == "speechbrain" else "todm_sb",
        pipeline_tag=TASK,
        tags=[TASK, "speech", "transducer", "todm", facts.form],
        metrics=["wer", "cer"],
        model_name=facts.name,
        eval_results=_eval_results(facts) or None,
    )
    license = "" if facts.license else "No licence is given: ask its author before you use it.\n\n"
    return "\n".join(
        [
            f"---\n{metadata.to_yaml()}\n---\n",
            f"# {facts.name}\n",
            f"{facts.network}. Trained with todm_sb, by TODM: Train Once Deploy Many "
            "([arXiv:2309.01947](https://arxiv.org/abs/2309.01947)).\n",
            f"{license}## {'Subnets' if len(facts.subnets) > 1 else 'Size and error rates'}\n",
            table_of([_row(s, facts.rates) for s in facts.subnets]) + "\n",
            *(f"{line}\n" for line in _scored_lines(facts)),
            *([IN_FLOAT + "\n"] if facts.form == "onnx-int8" and facts.rates else []),
            f"## Use\n\n{_use(facts)}\n",
            "## Training\n",
            *(f"- {line}" for line in facts.training),
            "",
        ]
    )


def training_lines(run: Path, hparams: Mapping[str, Any], durations: Sequence[float]) -> list[str]:
    """What a run was trained on, and by what.

    Args:
        run: its folder.
        hparams: of it.
        durations: seconds of each utterance, if they are known.
    """
    lines = []
    if durations:
        hours = sum(durations) / 3600
        lines.append(f"{len(durations):,} utterances, {hours:,.2f} hours of speech")
    lines.append(f"{hparams['vocab_size']} labels ({hparams['tokenizer_type']})")
    if epochs := TrainingHistory(run).read():
        lines.append(f"epochs: {epochs[-1]['epoch']}")
    if source := read_record(run / BEGUN_FROM).get("init_from"):
        lines.append(f"began from: {Path(source).name}")
    versions = provenance.read(run).get("versions", {})
    if known := [f"{name} {versions[name]}" for name in PACKAGES if name in versions]:
        lines.append(", ".join(known))
    return lines


def _eval_results(facts: CardFacts) -> list[EvalResult]:
    """The error rates of each subnet that is in the card."""
    results = []
    for name, rates in facts.rates.items():
        where: dict[str, Any] = {
            "task_type": TASK,
            "task_name": "Speech recognition",
            "dataset_name": f"{facts.dataset} {name}" if facts.dataset else name,
            "dataset_type": re.sub(r"\W+", "_", (facts.dataset or name).lower()),
            "dataset_split": name,
        }
        for subnet in facts.subnets:
            for key, value in rates.get(subnet.config, {}).items():
                kind, _, mode = key.partition("-")
                of = ", ".join(filter(None, [f"{kind} of {subnet.name}", mode]))
                metric: dict[str, Any] = {"metric_type": kind.lower(), "metric_name": of}
                results.append(EvalResult(**where, **metric, metric_value=round(value, 2)))
    return results


def _scored_lines(facts: CardFacts) -> list[str]:
    """What the error rates in the card are of, by data set."""
    found = [
        f"{name}: {scored_text(scored)}"
        for name, of_set in facts.scored.items()
        for subnet in facts.subnets
        if (scored := of_set.get(subnet.config))
    ]
    return list(dict.fromkeys(found))


def _row(subnet: BundledSubnet, rates: Mapping[str, Rates]) -> dict[str, str]:
    row = {
        "subnet": subnet.name,
        **subnet.config.describe(),
        "parameters": f"{subnet.cost['params']:,}",
    }
    for name, of_set in rates.items():
        for key, value in of_set.get(subnet.config, {}).items():
            if key.startswith("WER"):
                row[f"{key} % {name}"] = f"{value:.2f}"
    return row


def _use(facts: CardFacts) -> str:
    return USES[facts.form.removesuffix("-int8")].format(
        name=facts.name,
        loader="from_supernet" if facts.family else "from_hparams",
        choice=', subnet="min"' if facts.family else "",
        option=" --subnet min" if facts.family else "",
    )
