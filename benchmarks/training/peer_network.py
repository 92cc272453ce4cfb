"""SpeechBrain's Conformer transducer, of the parts and in the proportions of its LibriSpeech recipe
(``conformer_transducer.yaml`` of SpeechBrain 1.1: 12 layers of width 512), at any width.
"""

from __future__ import annotations

import torch
from speechbrain.lobes.models.convolution import ConvolutionFrontEnd
from speechbrain.lobes.models.transformer.TransformerASR import EncoderWrapper, TransformerASR
from speechbrain.nnet.embedding import Embedding
from speechbrain.nnet.linear import Linear
from speechbrain.nnet.losses import ctc_loss
from speechbrain.nnet.RNN import LSTM
from speechbrain.nnet.transducer.transducer_joint import Transducer_joint
from torch import Tensor, nn

from todm_sb.decoders.speechbrain import TransducerBeamSearcher
from todm_sb.losses.lattice import following_labels, log_softmax, two_channel_loss
from todm_sb.nnet.predictor import start_with_blank
from todm_sb.supernet.trunk import Labels

BLANK = 0
# Of the front end, and what is dropped of the predictor's input and output.
CHANNELS = (64, 32)
DROPOUT, EMBEDDING_DROPOUT = 0.1, 0.2


class ConformerTransducer(nn.Module):
    """Encoder, predictor, joint and CTC head.

    Widths are to ``d_model`` as in the recipe: feed-forward layers 4, joint 1.25, predictor 1. Its
    training in chunks, for streaming, is left out.

    Args:
        vocab_size: labels with blank, which is label 0.
        d_model: width of the encoder's layers.
        n_layers: of the encoder.
        n_heads: of attention; they divide ``d_model``.
        n_features: feature bins a frame.
        strides: of the two convolutions of the front end, in time and in frequency.
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        n_layers: int = 12,
        n_heads: int = 4,
        n_features: int = 80,
        strides: tuple[int, int] = (2, 2),
    ) -> None:
        super().__init__()
        d_joint = d_model * 5 // 4
        self.front_end = ConvolutionFrontEnd(
            input_shape=(8, 10, n_features),
            num_blocks=2,
            num_layers_per_block=1,
            out_channels=CHANNELS,
            kernel_sizes=(3, 3),
            strides=strides,
            residuals=(False, False),
        )
        with torch.no_grad():
            width = self.front_end(torch.zeros(1, 10, n_features)).flatten(2).shape[2]
        self.encoder = EncoderWrapper(
            TransformerASR(
                tgt_vocab=vocab_size,
                input_size=width,
                d_model=d_model,
                nhead=n_heads,
                num_encoder_layers=n_layers,
                num_decoder_layers=0,
                d_ffn=4 * d_model,
                dropout=DROPOUT,
                activation=nn.GELU,
                encoder_module="conformer",
                attention_type="RelPosMHAXL",
                normalize_before=True,
                causal=False,
            )
        )
        self.project_encoder = Linear(input_size=d_model, n_neurons=d_joint, bias=False)
        self.embedding = Embedding(vocab_size, consider_as_one_hot=True, blank_id=BLANK)
        self.lstm = LSTM(
            input_shape=[None, None, vocab_size - 1],
            hidden_size=d_model,
            num_layers=1,
            re_init=True,
        )
        self.project_predictor = Linear(input_size=d_model, n_neurons=d_joint, bias=False)
        self.joint = Transducer_joint(joint="sum", nonlinearity=nn.GELU)
        self.output = Linear(input_size=d_joint, n_neurons=vocab_size, bias=False)
        self.ctc = Linear(input_size=d_joint, n_neurons=vocab_size)

    def n_parameters(self) -> int:
        """Of all that is deployed: without the CTC head."""
        parts = [part for name, part in self.named_children() if name != "ctc"]
        return sum(p.numel() for part in parts for p in part.parameters())

    def encode(self, features: Tensor, n_frames: Tensor) -> tuple[Tensor, Tensor]:
        """Projected outputs of the encoder.

        Args:
            features: (batch, T, n_features).
            n_frames: (batch,), integer frames of each utterance.

        Returns:
            (batch, T', d_joint), and the frames of each utterance, rounded as SpeechBrain does.
        """
        shares = n_frames / features.shape[1]
        frames = self.front_end(features)
        encoded = self.project_encoder(self.encoder(frames, shares, pad_idx=BLANK))
        return encoded, (shares * encoded.shape[1]).round().long()

    def predict(self, ids: Tensor) -> Tensor:
        """(batch, U) labels -> (batch, U + 1, d_joint), projected outputs of the predictor."""
        x = self.embedding(start_with_blank(ids, BLANK))
        x = nn.functional.dropout(x, EMBEDDING_DROPOUT, self.training)
        x, _ = self.lstm(x)
        return self.project_predictor(nn.functional.dropout(x, DROPOUT, self.training))

    def transducer_loss(self, encoded: Tensor, n_frames: Tensor, labels: Labels) -> Tensor:
        """Transducer loss on the full lattice in nats, the mean over utterances.

        SpeechBrain takes it from the logits of all labels; here, in a fraction of the time, it is
        from the two that the lattice needs. Value and gradient are the same.

        Args:
            encoded, n_frames: of :meth:`encode`.
            labels: of the batch.
        """
        joint = self.joint(encoded.unsqueeze(2), self.predict(labels.ids).unsqueeze(1))
        log_probs = log_softmax(self.output(joint))
        following = following_labels(labels.ids, labels.lengths, BLANK)[:, None, :, None]
        index = following.expand(-1, log_probs.shape[1], -1, -1)
        arcs = torch.cat([log_probs[..., BLANK : BLANK + 1], log_probs.gather(3, index)], 3)
        loss, _ = two_channel_loss(arcs, n_frames, labels.lengths)
        return loss.mean()

    def ctc_loss(self, encoded: Tensor, n_frames: Tensor, labels: Labels) -> Tensor:
        """CTC loss in nats, the mean over utterances; arguments as of :meth:`transducer_loss`."""
        shares = n_frames / encoded.shape[1], labels.lengths / labels.ids.shape[1]
        log_probs = log_softmax(self.ctc(encoded))
        return ctc_loss(log_probs, labels.ids, *shares, BLANK, reduction="batchmean")

    def searcher(self) -> TransducerBeamSearcher:
        """Greedy search, which finds the same labels as SpeechBrain's."""
        layers = [self.embedding, self.lstm, self.project_predictor]
        return TransducerBeamSearcher(layers, self.joint, [self.output], BLANK, beam_size=1)
