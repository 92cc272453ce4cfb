"""Our searches over networks built of SpeechBrain's parts, for SpeechBrain's own recipes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from speechbrain.nnet.linear import Linear
from speechbrain.nnet.RNN import LSTM
from torch import Tensor, nn

from todm_sb.decoders.rnn_state import batch_first, layers_first
from todm_sb.decoders.transducer import TransducerSearcher
from todm_sb.nnet.lstm_step import lstm_step
from todm_sb.nnet.predictor import State

# SpeechBrain tells by the name of its class whether a layer of the predictor keeps a state.
RECURRENT = ("RNN", "LSTM", "GRU", "LiGRU", "LiGRU_Layer")

# SpeechBrain's greedy search counts the turns of a frame from 0 up to max_symbols_per_step = 5.
MAX_SYMBOLS = 6


class SpeechBrainNetworks:
    """Predictor, joint and classifier as ``TransducerBeamSearcher`` takes them.

    A joint of the "concat" kind with a linear joint network, ``W [enc, pred] + b``, is projected
    in its two halves, once a frame and once a label; weights are taken at each search, so that a
    checkpoint may be loaded in between.

    Args:
        decode_network_lst: layers of the predictor, applied one after another.
        tjoint: a :class:`speechbrain.nnet.transducer.transducer_joint.Transducer_joint`, or any
            module that joins (batch, T, 1, d) with (batch, 1, U, d).
        classifier_network: layers from the joint space to logits.
        blank_id: id of blank.
    """

    def __init__(
        self,
        decode_network_lst: Sequence[Any],
        tjoint: Any,
        classifier_network: Sequence[nn.Module],
        blank_id: int,
    ) -> None:
        self.decode_network_lst = decode_network_lst
        self.tjoint = tjoint
        self.classifier_network = classifier_network
        self.blank = blank_id

    def project_encoder(self, encoded: Tensor) -> Tensor:
        """See :class:`todm_sb.decoders.networks.SearchNetworks`."""
        linear = self._split_joint()
        if linear is None:
            return encoded
        return F.linear(encoded, linear.weight[:, : encoded.shape[-1]], linear.bias)

    def predict(self, labels: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """See :class:`todm_sb.decoders.networks.SearchNetworks`."""
        x = labels.unsqueeze(1)
        # As in SpeechBrain's search, a recurrent layer starts from the state of the one before.
        for layer in self.decode_network_lst:
            if type(layer) is LSTM and not layer.rnn.bidirectional:
                x, state = _step(layer.rnn, x, state)
            elif layer.__class__.__name__ in RECURRENT:
                x, hidden = layer(x, layers_first(state))
                state = batch_first(hidden)
            else:
                x = layer(x)
        x = x.squeeze(1)
        linear = self._split_joint()
        if linear is not None:
            x = F.linear(x, linear.weight[:, -x.shape[-1] :])
        return x, state or ()

    def join(self, encoder: Tensor, predictor: Tensor) -> Tensor:
        """See :class:`todm_sb.decoders.networks.SearchNetworks`."""
        encoder, predictor = encoder.unsqueeze(2), predictor.unsqueeze(1)
        if self._split_joint() is None:
            x = self.tjoint(encoder, predictor)
        else:
            x = self.tjoint.nonlinearity(encoder + predictor)
        for layer in self.classifier_network:
            x = layer(x)
        return x

    def _split_joint(self) -> nn.Linear | None:
        """The linear layer over [encoder, predictor], if the joint has one."""
        if getattr(self.tjoint, "joint", None) != "concat":
            return None
        network = self.tjoint.joint_network
        if type(network) is Linear and network.max_norm is None and not network.combine_dims:
            network = network.w
        # A class derived from Linear may compute something else.
        return network if type(network) is nn.Linear else None


def _step(lstm: nn.LSTM, x: Tensor, state: State | None) -> tuple[Tensor, State]:
    """What ``lstm(x, state)`` gives for a single label, (batch, 1, width), faster."""
    if not state:
        zeros = x.new_zeros(len(x), lstm.num_layers, lstm.hidden_size)
        state = zeros, zeros
    y, h, c = lstm_step(lstm, x.squeeze(1), *state)
    return y.unsqueeze(1), (h, c)


class TransducerBeamSearcher(TransducerSearcher):
    """Takes the place of ``speechbrain.decoders.transducer.TransducerBeamSearcher``.

    Change the module in the recipe's YAML, nothing else::

        Beamsearcher: !new:todm_sb.decoders.speechbrain.TransducerBeamSearcher
            decode_network_lst: [!ref <emb>, !ref <dec>]
            tjoint: !ref <Tjoint>
            classifier_network: [!ref <transducer_lin>]
            blank_id: !ref <blank_index>
            beam_size: 4
            nbest: 1

    Greedy search finds the same tokens as SpeechBrain's, up to :data:`MAX_SYMBOLS` a frame.
    Beam search is of another kind: an utterance's score is the log-probability of its labels,
    summed over alignments with so many labels a frame and not divided by their number.
    Beyond SpeechBrain's, ``searcher(tn_output, wav_lens)`` keeps away from padded frames.

    Args:
        decode_network_lst: layers of the predictor.
        tjoint: the :class:`~speechbrain.nnet.transducer.transducer_joint.Transducer_joint`.
        classifier_network: layers from the joint space to logits.
        blank_id: id of blank.
        beam_size: hypotheses kept; 1 is greedy search, which uses no language model.
        nbest: hypotheses returned of a beam search, ``beam_size`` at most.
        lm_module: language model, see :func:`todm_sb.decoders.beam.beam_search`.
        lm_weight: its weight; 0 for none.
        state_beam: see :func:`todm_sb.decoders.beam.beam_search`.
        expand_beam: taken, not used: extensions are bounded by ``state_beam`` here.

    Raises:
        ConfigError: if there is a weight but no language model.
    """

    def __init__(
        self,
        decode_network_lst: Sequence[Any],
        tjoint: Any,
        classifier_network: Sequence[nn.Module],
        blank_id: int,
        beam_size: int = 4,
        nbest: int = 5,
        lm_module: nn.Module | None = None,
        lm_weight: float = 0.0,
        state_beam: float = 2.3,
        expand_beam: float = 2.3,
    ) -> None:
        super().__init__(
            SpeechBrainNetworks(decode_network_lst, tjoint, classifier_network, blank_id),
            beam_size=max(beam_size, 1),
            max_symbols=MAX_SYMBOLS,
            nbest=min(nbest, max(beam_size, 1)),
            lm_module=lm_module,
            lm_weight=lm_weight,
            state_beam=state_beam,
        )
        self.tjoint = tjoint  # a part of this module, as it is of SpeechBrain's
