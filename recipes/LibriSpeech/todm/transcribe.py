#!/usr/bin/env python3
"""Reads audio files with an exported subnet.

    python transcribe.py exported/min speech.flac ...

Where a file lies in LibriSpeech's layout, its reference is printed above what was read.
"""

import sys
from pathlib import Path

from todm_sb.dataio.librispeech import reference_of
from todm_sb.dataio.text import printable, words_of_text
from todm_sb.inference import SubnetASR
from todm_sb.utils.errors import ConfigError, one_line_errors


def main(arguments: list[str]) -> None:
    """Prints what the subnet reads in each file."""
    if len(arguments) < 2:
        raise ConfigError("usage: transcribe.py <exported folder> <audio file> ...")
    asr = SubnetASR.from_hparams(arguments[0])
    for path in arguments[1:]:
        reference, hypothesis = reference_of(Path(path)), asr.transcribe_file(path)
        print(printable(path))
        if reference is not None:
            words = words_of_text(asr.tokenizer, reference)
            print(f"  reference   {printable(' '.join(words))}")
        print(f"  hypothesis  {printable(hypothesis)}")


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])
