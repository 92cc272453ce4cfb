"""Alignments of a transducer, one by one."""

import itertools
import math

import torch


def alignments(T, U):
    """Every alignment of U labels to T frames, as the arcs (t, u, 0 for blank or 1 for a label).

    An alignment orders T blanks, each a step to the next frame, and the U labels; its last step
    is a blank.
    """
    paths = []
    for label_steps in itertools.combinations(range(T - 1 + U), U):
        t = u = 0
        path = []
        for step in range(T + U):
            is_label = step in label_steps
            path.append((t, u, int(is_label)))
            t, u = (t, u + 1) if is_label else (t + 1, u)
        assert (t, u) == (T, U)
        paths.append(path)
    assert len(paths) == math.comb(T - 1 + U, U)
    return paths


def enumerate_arcs(arcs):
    """Loss and occupancy of one utterance by going through its alignments, in float64.

    arcs: (T, U + 1, 2), log-probabilities of blank and of the next label.
    """
    T, rows, _ = arcs.shape
    paths = alignments(T, rows - 1)
    scores = torch.stack([sum(arcs.double()[arc] for arc in path) for path in paths])
    occupancy = torch.zeros(T, rows, dtype=torch.double)
    for path, share in zip(paths, scores.detach().softmax(0), strict=True):
        for t, u, _ in path:
            occupancy[t, u] += share
    return -scores.logsumexp(0), occupancy
