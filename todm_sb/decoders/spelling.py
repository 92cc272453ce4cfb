"""Whether a text is spelt as the transcripts of training were: what a tokenizer knows of it."""

from __future__ import annotations

from sentencepiece import SentencePieceProcessor


def known_spelling(text: str, tokenizer: SentencePieceProcessor) -> str | None:
    """The text in upper or lower case, if the tokenizer knows more of its letters so, and letters
    of that case alone: where it knows both, a rare letter was spelt in bytes in training, too."""
    n_strange = len(strange_characters(text, tokenizer))
    for form, in_other_case in ((text.upper(), str.islower), (text.lower(), str.isupper)):
        known = tokenizer.unk_id() not in tokenizer.encode_as_ids(form)
        if known and len(strange_characters(form, tokenizer)) < n_strange:
            pieces = tokenizer.id_to_piece(list(range(tokenizer.get_piece_size())))
            if not any(len(piece) == 1 and in_other_case(piece) for piece in pieces):
                return form
    return None


def strange_characters(text: str, tokenizer: SentencePieceProcessor) -> list[str]:
    """Characters that are no pieces: unknown, or spelt in bytes."""

    def is_strange(label: int) -> bool:
        return tokenizer.is_unknown(label) or tokenizer.is_byte(label)

    return [x for x in text if any(map(is_strange, tokenizer.encode_as_ids(x)))]
