"""Whether a text is spelt as the transcripts of training were: what a tokenizer knows of it."""

from __future__ import annotations

from sentencepiece import SentencePieceProcessor


def known_spelling(text: str, tokenizer: SentencePieceProcessor) -> str | None:
    """The text in upper or lower case, if the tokenizer knows more of its letters so."""
    n_strange = len(strange_characters(text, tokenizer))
    for form in (text.upper(), text.lower()):
        known = tokenizer.unk_id() not in tokenizer.encode_as_ids(form)
        if known and len(strange_characters(form, tokenizer)) < n_strange:
            return form
    return None


def strange_characters(text: str, tokenizer: SentencePieceProcessor) -> list[str]:
    """Characters that are no pieces: unknown, or spelt in bytes."""

    def is_strange(label: int) -> bool:
        return tokenizer.is_unknown(label) or tokenizer.is_byte(label)

    return [x for x in text if any(map(is_strange, tokenizer.encode_as_ids(x)))]
