"""What hot words do to the errors of the words that are listed, and to those of all others.

    python benchmarks/hotwords.py bundles/all --subnet max

A network of the mini recipe's hears new commands of unknown voices under white noise. Lists are
of a few words of the grammar, or of its phrases, and of names that nobody says; each is tried on
the commands that have something of it, as those of a user whose list it is. Errors are of listed
words and of others, as Le et al. (arXiv:2104.02194) count them: an inserted word by what it is,
others by what was said. Peer: hot words as icefall and sherpa-onnx have them, where each label has
the whole boost and a phrase may end within a word.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from speechbrain.utils.edit_distance import wer_details_for_batch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from todm_sb.dataio.librispeech import reference_of
from todm_sb.dataio.mini_corpus import prepare_mini_corpus
from todm_sb.decoders.fusion import Fusion
from todm_sb.decoders.hotword_file import BOOST, hotword_graph
from todm_sb.decoders.hotwords import HotwordGraph
from todm_sb.inference import SubnetASR
from todm_sb.inference.decoding import BEAM, Decoding
from todm_sb.utils.errors import one_line_errors

# Of the grammar, spoken as one.
PHRASES = [
    *("GOOD NIGHT", "THANK YOU", "TOMORROW MORNING", "THIS EVENING"),
    *("WATER THE FLOWERS", "FEED THE DOG", "FEED THE CAT"),
]
# Nobody says them.
UNSAID = [
    *("HANNAH", "ANITA", "ANDREA", "PETRA", "PIERRE", "BEATRICE", "MARINA", "MARION", "MARTHA"),
    *("MARIO", "SIMONE", "SALOMON", "RAYMOND", "GORDON", "MARTIN", "JASON", "TIM", "KIM", "EVE"),
    *("STEPHAN", "ALAN", "RADU", "LARA", "SARA", "WALTER", "WATSON", "FORD", "OLIVER", "COLLIN"),
    *("CATHERINE", "KITTY", "BETTY", "FREDDY", "TEDDY", "MORGAN", "NORMAN", "THOMAS", "NOAH"),
]
SHORTEST = 4  # letters of a word that may be listed
PEER_BOOST = 1.5  # sherpa-onnx's


class Errors(NamedTuple):
    """Word errors, and words, listed and others."""

    listed: int
    of_listed: int
    others: int
    of_others: int


class Spoken(NamedTuple):
    """Encoded utterances, (frames, d_model) each, and what was said."""

    encoded: list[Tensor]
    words: list[list[str]]

    def some(self, at: Sequence[int]) -> Spoken:
        """Those of these numbers."""
        return Spoken([self.encoded[i] for i in at], [self.words[i] for i in at])


def speak(asr: SubnetASR, folder: Path, n: int, snr_db: float) -> Spoken:
    """Synthesises and encodes utterances under noise."""
    prepare_mini_corpus(folder, seed=1, n_train=0, n_dev=0, n_test=n)
    files = sorted((folder / "test-clean").glob("*/*/*.flac"))
    rng, encoded = np.random.default_rng(0), []
    network = asr.mods.encoder
    for path in files:
        wave = asr.load_audio(path)
        noise = torch.from_numpy(rng.standard_normal(len(wave))).float()
        noisy = wave + 10 ** (-snr_db / 20) * wave.std() * noise
        with torch.no_grad():
            found, _ = network.model.encoder(*network.features(noisy[None], torch.ones(1)))
        encoded.append(found[0])
    return Spoken(encoded, [reference_of(path).split() for path in files])


def deal(words: Iterable[str], n: int) -> list[list[str]]:
    """Deals out words to lists."""
    shuffled = sorted(w for w in set(words) if len(w) >= SHORTEST)
    random.Random(0).shuffle(shuffled)
    return [shuffled[i::n] for i in range(n)]


def ours(asr: SubnetASR, phrases: Sequence[str], boost: float) -> HotwordGraph:
    """Hot words as they are here."""
    return hotword_graph(dict.fromkeys(phrases, boost), asr.tokenizer)


def peer(asr: SubnetASR, phrases: Sequence[str], boost: float) -> HotwordGraph:
    """Hot words as they are elsewhere."""
    labels = {tuple(asr.tokenizer.encode_as_ids(phrase)): boost for phrase in phrases}
    return HotwordGraph(labels, [True] * asr.tokenizer.vocab_size())


def decode(
    asr: SubnetASR, spoken: Spoken, beam_size: int, fusions: Sequence[Fusion]
) -> list[list[str]]:
    """The words that are found in each utterance."""
    searcher = Decoding(beam_size).searcher(asr.mods.decoder, asr.tokenizer, "cpu")
    searcher.fusions = tuple(fusions)
    lengths = torch.tensor([len(x) for x in spoken.encoded])
    found = searcher.search(pad_sequence(spoken.encoded, batch_first=True), lengths)
    return [asr.detokenizer.text(best.tokens).split() for best, *_ in found]


def listed_places(words: Sequence[str], phrases: Iterable[str]) -> list[bool]:
    """Whether each word is in a phrase."""
    places = [False] * len(words)
    for phrase in (p.split() for p in phrases):
        for i in range(len(words) - len(phrase) + 1):
            if list(words[i : i + len(phrase)]) == phrase:
                places[i : i + len(phrase)] = [True] * len(phrase)
    return places


def errors_of(
    said: Sequence[list[str]], found: Sequence[list[str]], phrases: Sequence[str]
) -> Errors:
    """Counts them, in listed words and in others."""
    errors, words = {True: 0, False: 0}, {True: 0, False: 0}
    aligned = wer_details_for_batch(range(len(said)), said, found, compute_alignments=True)
    for utterance, hypothesis, details in zip(said, found, aligned, strict=True):
        spoken, heard = (listed_places(x, phrases) for x in (utterance, hypothesis))
        for place in spoken:
            words[place] += 1
        for kind, i, j in details["alignment"]:
            if kind != "=":
                errors[heard[j] if i is None else spoken[i]] += 1
    return Errors(errors[True], words[True], errors[False], words[False])


def total(counts: Sequence[Errors]) -> Errors:
    """Over lists."""
    return Errors(*map(sum, zip(*counts, strict=True)))


def print_row(name: str, plain: Errors, hot: Errors) -> None:
    """Prints a row of the table."""
    cells = [name]
    for before, after, n in (
        (plain.listed, hot.listed, plain.of_listed),
        (plain.others, hot.others, plain.of_others),
    ):
        cells += [f"{n:,}", f"{before} ({100 * before / n:.1f} %)", f"{after}"]
        cells.append(f"{100 * (after / max(1, before) - 1):+.0f} %")
    print(f"| {' | '.join(cells)} |", flush=True)


def print_table(
    asr: SubnetASR,
    spoken: Spoken,
    beam_size: int,
    boosts: Sequence[float],
    n_lists: int,
    peer_too: bool,
) -> None:
    """Decodes without and with hot words."""
    words = deal((w for x in spoken.words for w in x), n_lists)
    ways = [(f"boost {boost:g}", ours, boost) for boost in boosts]
    if peer_too:
        ways.append((f"peer, boost {PEER_BOOST:g}", peer, PEER_BOOST))
    plain = decode(asr, spoken, beam_size, [])
    print("| | listed words | errors | with hot words | | others | errors | with hot words | |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for way, graph_of, boost in ways:
        for kind, lists in {f"words, {n_lists} lists": words, "phrases": [PHRASES]}.items():
            before, after = [], []
            for own in lists:
                at = [i for i, x in enumerate(spoken.words) if any(listed_places(x, own))]
                user = spoken.some(at)
                hot = decode(asr, user, beam_size, [graph_of(asr, own + UNSAID, boost)])
                before.append(errors_of(user.words, [plain[i] for i in at], own))
                after.append(errors_of(user.words, hot, own))
            print_row(f"{kind}, {way}", total(before), total(after))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--subnet", default="max")
    parser.add_argument("--data", type=Path, help="keep what is spoken in this folder")
    parser.add_argument("--utterances", type=int, default=200)
    parser.add_argument("--snr", type=float, default=10.0, metavar="DB")
    parser.add_argument("--boosts", type=float, nargs="+", default=[BOOST])
    parser.add_argument("--beam-size", type=int, default=BEAM)
    parser.add_argument("--lists", type=int, default=16, help="that all words are dealt out to")
    parser.add_argument("--no-peer", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    asr = SubnetASR.from_bundle(args.bundle, args.subnet)
    with tempfile.TemporaryDirectory() as folder:
        spoken = speak(asr, args.data or Path(folder), args.utterances, args.snr)
    print_table(asr, spoken, args.beam_size, args.boosts, args.lists, not args.no_peer)


if __name__ == "__main__":
    with one_line_errors():
        main()
