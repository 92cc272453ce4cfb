"""Corpora as SpeechBrain manifests: LibriSpeech, spoken digits and a synthesised mini corpus."""
