"""Files on the disk."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

from todm_sb.utils.errors import DataError, quoted


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file's content, in hexadecimal.

    Args:
        path: of the file, which may be of any size.
    """
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_record(path: str | Path) -> dict[str, Any]:
    """The mapping in a JSON file; empty where there is no such file, or it holds no mapping.

    Args:
        path: of what is written anew where it is lost, such as hashes of files.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_atomic(path: str | Path, content: str | bytes) -> None:
    """Writes a file so that it is there whole or not at all, whenever the run is interrupted.

    Args:
        path: the file; its folder is made if need be.
        content: text (written as UTF-8) or bytes.

    Raises:
        DataError: if a name in the text is not UTF-8, as names of files need not be.
    """
    path = Path(path)
    data = _encoded(path, content) if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two runs may prepare the same folder; and the file's own name may be as long as any can be.
    tmp = path.with_name(f".{uuid4().hex}.tmp")
    try:
        tmp.write_bytes(data)
        os.replace(tmp, path)
    finally:
        tmp.unlink(missing_ok=True)


def _encoded(path: Path, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        name = text[max(0, error.start - 60) : error.end + 60]
        raise DataError(
            f"{path} cannot hold the name in {quoted(name)}, which is not UTF-8: rename the file"
        ) from None
