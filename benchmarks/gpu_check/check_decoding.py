"""Greedy and beam search against SpeechBrain's, on a device."""

from __future__ import annotations

from collections.abc import Iterator

import speechbrain.decoders.transducer as peer
import torch
from check_runner import Context, Row
from check_sizes import SIZES, seconds_of
from speechbrain.utils.edit_distance import wer_details_for_batch
from synthetic_transducer import Networks, fitted_transducer

from todm_sb.decoders import speechbrain as ours


@torch.no_grad()
def decoding(context: Context) -> Iterator[Row]:
    """Times of a batch; SpeechBrain's beam search gets a part of it, and is scaled."""
    size, device = SIZES[context.size], context.device
    batch, n_frames, peer_batch, peer_frames = size.search
    torch.manual_seed(0)
    networks, encoded = fitted_transducer(batch, n_frames)
    networks, encoded = _moved(networks, device), encoded.to(device)
    shapes = f"B {batch}, T {n_frames}"

    mine, theirs = (x.TransducerBeamSearcher(**networks, beam_size=1) for x in (ours, peer))
    same = mine(encoded)[0] == theirs(encoded)[0]
    taken = seconds_of(lambda: mine(encoded), device, size.repeats)
    peer_taken = seconds_of(lambda: theirs(encoded), device, 1, warmup=0)
    yield {**_row(f"greedy, {shapes}", taken, peer_taken), "ok": same}

    mine, theirs = (
        x.TransducerBeamSearcher(**networks, beam_size=4, nbest=1) for x in (ours, peer)
    )
    part = encoded[:peer_batch, :peer_frames]
    scale = encoded.shape[0] * encoded.shape[1] / (part.shape[0] * part.shape[1])
    taken = seconds_of(lambda: mine(encoded), device, size.repeats)
    peer_taken = scale * seconds_of(lambda: theirs(part), device, 1, warmup=0)
    name = f"beam 4, {shapes}, peer {scale:g} times {peer_batch} x {peer_frames}"
    # Beam searches differ in what they sum up and leave out; most labels are the same.
    same = _share_of_same(mine(part)[0], theirs(part)[0])
    yield {**_row(name, taken, peer_taken), "same labels": same, "ok": same > 0.9}


def _row(what: str, taken: float, peer_taken: float) -> Row:
    return {"what": what, "ours, s": taken, "peer, s": peer_taken, "ratio": taken / peer_taken}


def _share_of_same(found: list[list[int]], expected: list[list[int]]) -> float:
    """Labels without an error, of all."""
    details = wer_details_for_batch([*map(str, range(len(found)))], expected, found)
    n_errors = sum(x["num_edits"] for x in details)
    return 1 - n_errors / max(1, sum(map(len, expected)))


def _moved(networks: Networks, device: str) -> Networks:
    moved = dict(networks)
    for name in ("decode_network_lst", "classifier_network"):
        moved[name] = [module.to(device) for module in networks[name]]
    moved["tjoint"] = networks["tjoint"].to(device)
    return moved
