"""A tiny corpus, and what was trained on it."""

import functools

import pytest
import speechbrain as sb
from tiny import CORPUS_SIZE, LIBRISPEECH, arguments, call, load_script


@pytest.fixture(scope="session", autouse=True)
def _environment_told_once():
    """SpeechBrain asks pip and git for it, in each run anew."""
    with pytest.MonkeyPatch.context() as patch:
        told = functools.cache(sb.utils.logger.get_environment_description)
        patch.setattr(sb.utils.logger, "get_environment_description", told)
        yield


@pytest.fixture(autouse=True)
def _curves_are_of_runs_that_tests_share(monkeypatch):
    """A picture takes as long as a tiny epoch: a training within a test draws none."""
    monkeypatch.setattr("todm_sb.training.curves.TrainingHistory._draw", lambda *_: None)


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
