"""What is said, and what is not."""

import logging
import sys
from types import SimpleNamespace

from speechbrain.utils import train_logger

from todm_sb.training.brain import TODMBrain


def test_nobody_is_told_that_pictures_of_synthesised_speech_cannot_be_saved(monkeypatch, caplog):
    # SpeechBrain asks when it is imported, in every training, search and export.
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert train_logger._get_image_saver() is None
    assert not caplog.records
    logging.getLogger(train_logger.__name__).warning("something else")
    assert caplog.messages == ["something else"]


def test_broken_audio_of_one_name_in_two_splits_is_named_twice(caplog):
    brain = SimpleNamespace(broken_audio=set())
    for path in ("train/u1.flac", "dev/u1.flac", "dev/u1.flac"):
        batch = SimpleNamespace(broken={"u1": f"unreadable audio ({path})"})
        TODMBrain._name_broken_audio(brain, batch)
    assert [message.split("(")[1] for message in caplog.messages] == [
        "train/u1.flac); 1 so far",
        "dev/u1.flac); 2 so far",
    ]
