"""``todm-sb manifest``: a manifest of a folder of audio with a text file beside each.

todm-sb manifest recordings/train train.csv
"""

from __future__ import annotations

import argparse
import sys

from todm_sb.cli.main import FAILED, OK
from todm_sb.dataio.folder_manifest import folder_rows
from todm_sb.dataio.manifest import write_csv
from todm_sb.utils.arguments import at_least, check_file_place, path
from todm_sb.utils.errors import ConfigError, DataError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``manifest``."""
    parser.add_argument("folder", type=path, help="of the audio; folders below it count, too")
    parser.add_argument("manifest", type=path, help="CSV to write")
    parser.add_argument(
        "--text-suffix", default=".txt", help="of the file with an audio file's text (.txt)"
    )
    parser.add_argument("--threads", type=at_least(1), default=8, help="files opened at a time (8)")
    parser.add_argument("--force", action="store_true", help="replace the CSV where it is there")


def run(arguments: argparse.Namespace) -> int:
    """Writes the manifest, and tells what is not in it.

    Returns:
        The exit code: 1 if some file was left out.

    Raises:
        ConfigError: if the CSV has no place, or is there already.
        DataError: if the folder is not there, or nothing in it can be used.
    """
    folder, manifest = arguments.folder, arguments.manifest
    if not arguments.text_suffix.startswith("."):
        raise ConfigError(f"--text-suffix must begin with a dot, not be {arguments.text_suffix!r}")
    if manifest.suffix != ".csv":
        raise ConfigError(f"{manifest}: what is written is CSV: give it a name in .csv")
    check_file_place(manifest)
    if manifest.exists() and not arguments.force:
        raise ConfigError(f"{manifest} is there already: name another file, or add --force")
    rows, faults = folder_rows(folder, manifest.parent, arguments.text_suffix, arguments.threads)
    for fault in faults:
        print(f"{fault.id}: {fault.cause} ({fault.detail})", file=sys.stderr)
    if not rows:
        raise DataError(
            f"{folder} holds no utterance: it takes audio files with a text beside each, such as "
            f"a.wav and a{arguments.text_suffix}"
        )
    write_csv(manifest, rows)
    hours = sum(row.duration for row in rows) / 3600
    left_out = f"; {len(faults)} files left out" if faults else ""
    print(f"{manifest}: {len(rows)} utterances, {hours:.2f} hours{left_out}")
    return FAILED if faults else OK
