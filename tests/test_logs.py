"""What is said, and what is not."""

import logging
import sys

from speechbrain.utils import train_logger


def test_nobody_is_told_that_pictures_of_synthesised_speech_cannot_be_saved(monkeypatch, caplog):
    # SpeechBrain asks when it is imported, in every training, search and export.
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert train_logger._get_image_saver() is None
    assert not caplog.records
    logging.getLogger(train_logger.__name__).warning("something else")
    assert caplog.messages == ["something else"]
