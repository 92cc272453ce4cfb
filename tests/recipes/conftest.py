"""A tiny corpus, and what was trained on it."""

import pytest
from tiny import CORPUS_SIZE, LIBRISPEECH, arguments, call, load_script


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A mini corpus of a few utterances."""
    from todm_sb.dataio.mini_corpus import prepare_mini_corpus

    folder = tmp_path_factory.mktemp("corpus")
    prepare_mini_corpus(folder, **CORPUS_SIZE)
    return folder


@pytest.fixture(scope="session")
def train():
    """The ``main`` of train.py."""
    return load_script(LIBRISPEECH / "train.py").main


@pytest.fixture(scope="session")
def tiny_run(corpus, train, tmp_path_factory):
    """Output folder of a finished tiny run."""
    output = tmp_path_factory.mktemp("run") / "tiny"
    train(arguments(corpus, output))
    return output


@pytest.fixture(scope="session")
def exported(tiny_run, tmp_path_factory):
    """Folders with the min subnet, and with the supernet, of the tiny run."""
    folder = tmp_path_factory.mktemp("exported")
    for name, subnet in (("min", "min"), ("all", "supernet")):
        call("export", tiny_run, folder / name, f"--subnet={subnet}", "--format=speechbrain")
    return folder
