"""Train one speech-recognition supernet, deploy many on-device models (TODM) on SpeechBrain."""

import logging

__version__ = "0.1.0"

# When a recipe names one of SpeechBrain's loggers, that module says that it cannot save pictures
# of speech synthesis. Here is none.
logging.getLogger("speechbrain.utils.train_logger").addFilter(
    lambda record: "torchvision" not in record.getMessage()
)
