"""Transducers of SpeechBrain's parts for the search benchmarks, and frames for them to decode.

Of two kinds. *Random*: weights as they are initialised, scaled up so that posteriors are not flat.
*Fitted*, which decodes made-up frames as a trained one does speech: each label has a random code of
+-1, frames that carry a label carry its code, the classifier looks for it, and the predictor's last
layer is fitted to take the code of the last label away, so that blank follows. SpeechBrain's beam
search needs it: on random networks, which give a label again and again, it does not come to an end
(its issue 1969).
"""

from __future__ import annotations

from typing import Any

import torch
from speechbrain.nnet.embedding import Embedding
from speechbrain.nnet.linear import Linear
from speechbrain.nnet.RNN import LSTM
from speechbrain.nnet.transducer.transducer_joint import Transducer_joint
from torch import Tensor

from todm_sb.decoders.speechbrain import TransducerBeamSearcher

V, D_LSTM, D_JOINT = 1000, 512, 640
LABELS_A_FRAME = 0.135

# The arguments of a transducer searcher that are networks, and encoder output (batch, T, D_JOINT).
Networks = dict[str, Any]
Made = tuple[Networks, Tensor]


@torch.no_grad()
def random_transducer(batch: int, n_frames: int) -> Made:
    """Random networks and frames; the bias of blank is set for :data:`LABELS_A_FRAME`."""
    networks = _networks()
    (classifier,) = networks["classifier_network"]
    networks["decode_network_lst"][-1].w.weight.mul_(3)
    classifier.w.weight.mul_(4)
    encoded = torch.randn(batch, n_frames, D_JOINT)
    search = TransducerBeamSearcher(**networks, beam_size=1)
    # From above: with a low bias there are labels without end.
    bias, step = 12.0, 1.0
    for _ in range(24):
        classifier.w.bias[0] = bias - step
        n_labels = sum(map(len, search(encoded)[0]))
        if n_labels > LABELS_A_FRAME * batch * n_frames:
            step /= 2
        else:
            bias -= step
    classifier.w.bias[0] = bias
    return networks, encoded


@torch.no_grad()
def fitted_transducer(batch: int, n_frames: int) -> Made:
    """Networks that give the labels, :data:`LABELS_A_FRAME`, that the frames carry."""
    networks = _networks()
    (classifier,) = networks["classifier_network"]
    codes = torch.randn(V, D_JOINT).sign()
    _fit_predictor(*networks["decode_network_lst"], -codes)
    # A frame that holds half of a code gives a logit of 40 tanh(0.5) = 18; blank has 10.
    classifier.w.weight.copy_(40 / D_JOINT * codes)
    classifier.w.weight[0] = 0
    classifier.w.bias.zero_()
    classifier.w.bias[0] = 10
    labels = torch.randint(1, V, (batch, n_frames))
    has_label = torch.rand(batch, n_frames, 1) < LABELS_A_FRAME
    noise = 0.2 * torch.randn(batch, n_frames, D_JOINT)
    return networks, noise + 0.5 * codes[labels] * has_label


def _networks() -> Networks:
    return {
        "decode_network_lst": [
            Embedding(V, D_LSTM),
            LSTM(D_LSTM, input_size=D_LSTM),
            Linear(D_JOINT, input_size=D_LSTM),
        ],
        "tjoint": Transducer_joint(joint="sum", nonlinearity=torch.nn.Tanh),
        "classifier_network": [Linear(V, input_size=D_JOINT)],
        "blank_id": 0,
    }


def _fit_predictor(embedding: Embedding, lstm: LSTM, last: Linear, targets: Tensor) -> None:
    """Least squares from the LSTM's output to the target of the last label it took."""
    labels = torch.randint(1, V, (400, 30))
    outputs, _ = lstm(embedding(labels))
    x = torch.cat([outputs, torch.ones_like(outputs[..., :1])], -1).flatten(0, 1)
    moments = x.T @ x + 1e-3 * torch.eye(x.shape[1])
    solution = torch.linalg.solve(moments, x.T @ targets[labels.flatten()])
    last.w.weight.copy_(solution[:-1].T)
    last.w.bias.copy_(solution[-1])
