"""The files of onnxruntime-web, fetched once and kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from todm_sb.utils.errors import ConfigError
from todm_sb.utils.files import sha256_of

VERSION = "1.30.0"
# Of the package's dist folder, what WebAssembly on the CPU takes, with its SHA-256.
FILES = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": (
        "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b"
    ),
    "ort-wasm-simd-threaded.wasm": (
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2"
    ),
}


def default_cache() -> Path:
    """Where the files are kept, for each version apart."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "todm_sb" / f"onnxruntime-web-{VERSION}"


def get_runtime(cache: Path) -> Path:
    """The folder of the files in :data:`FILES`, fetched by npm if they are not there yet.

    Args:
        cache: folder of :func:`default_cache`.

    Raises:
        ConfigError: if they cannot be had, or are not those that this version was tested with.
    """
    if not is_whole(cache):
        try:
            _fetch(cache)
        except OSError as error:
            raise ConfigError(f"{cache} cannot be written: {error.strerror}") from None
    return cache


def is_whole(folder: Path) -> bool:
    """Whether a folder holds the files, undamaged."""
    return all(
        (folder / name).is_file() and sha256_of(folder / name) == digest
        for name, digest in FILES.items()
    )


def _fetch(cache: Path) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    # Beside the cache, so that files are put in place by renaming; what else is there stays.
    with tempfile.TemporaryDirectory(dir=cache.parent) as temporary:
        work, files = Path(temporary), Path(temporary) / "files"
        files.mkdir()
        _unpack(_pack(work, cache), files)
        if not is_whole(files):
            raise ConfigError(
                f"npm gave another onnxruntime-web {VERSION} than this todm_sb was tested with"
            )
        cache.mkdir(exist_ok=True)
        for name in FILES:
            os.replace(files / name, cache / name)


def _pack(work: Path, cache: Path) -> Path:
    """The package as npm's archive."""
    by_hand = f"or copy {', '.join(FILES)} of onnxruntime-web {VERSION} into {cache}"
    npm = shutil.which("npm")
    if npm is None:
        raise ConfigError(
            f"the page needs npm to fetch onnxruntime-web once: install it, {by_hand}"
        )
    done = subprocess.run(
        [npm, "pack", f"onnxruntime-web@{VERSION}", "--silent", "--pack-destination", str(work)],
        cwd=work,
        capture_output=True,
        text=True,
        check=False,
    )
    archives = list(work.glob("*.tgz"))
    if done.returncode or not archives:
        raise ConfigError(
            f"npm could not fetch onnxruntime-web (exit code {done.returncode}): "
            f"go online for the first start, {by_hand}"
        )
    return archives[0]


def _unpack(archive: Path, folder: Path) -> None:
    """Only the files needed, by their names: nothing in an archive says where it goes."""
    try:
        with tarfile.open(archive) as tar:
            for name in FILES:
                source = tar.extractfile(f"package/dist/{name}")
                if source is None:  # a folder
                    raise KeyError(name)
                with source, (folder / name).open("wb") as target:
                    shutil.copyfileobj(source, target)
    except (tarfile.TarError, KeyError, EOFError):
        raise ConfigError(f"{archive.name} from npm is damaged: try again") from None
