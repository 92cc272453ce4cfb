"""Train one speech-recognition supernet, deploy many on-device models (TODM) on SpeechBrain."""

__version__ = "0.1.0"
