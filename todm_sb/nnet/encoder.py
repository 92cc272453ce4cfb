"""The MH-SSM encoder, elastic in depth and FFN width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from todm_sb.nnet.block_operators import BLOCK, BlockOperators
from todm_sb.nnet.elastic import ElasticFFN, Subnet
from todm_sb.nnet.masking import frame_mask
from todm_sb.nnet.ssm import MultiHeadSSM
from todm_sb.nnet.subsampling import ConvSubsampling


class MHSSMLayer(nn.Module):
    """One encoder block: pre-norm MH-SSM and pre-norm elastic FFN, each with a residual.

    Args:
        ssm: mixes frames.
        ffn: mixes channels.
        d_model: width of input and output.
        dropout: probability on the SSM branch; the FFN has its own, adaptive one.
    """

    def __init__(
        self, ssm: MultiHeadSSM, ffn: ElasticFFN, d_model: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm_ssm = nn.LayerNorm(d_model)
        self.ssm = ssm
        self.norm_ffn = nn.LayerNorm(d_model)
        self.ffn = ffn
        self.dropout = dropout

    def forward(
        self,
        x: Tensor,
        mask: Tensor,
        ffn_dim: int | None = None,
        spectra: list[Tensor] | None = None,
        causal: bool = False,
    ) -> Tensor:
        """(batch, T, d_model) -> (batch, T, d_model); arguments as of the two sublayers."""
        y = self.ssm(self.norm_ssm(x), mask, spectra, causal)
        x = x + F.dropout(y, self.dropout, self.training)
        return x + self.ffn(self.norm_ffn(x), ffn_dim)

    def chunk(
        self,
        x: Tensor,
        state: list[Tensor],
        ffn_dim: int | None = None,
        operators: list[BlockOperators] | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """The same block chunk by chunk; see :meth:`MultiHeadSSM.chunk`."""
        y, state = self.ssm.chunk(self.norm_ssm(x), state, operators)
        x = x + y
        return x + self.ffn(self.norm_ffn(x), ffn_dim), state


class EncoderState(NamedTuple):
    """What the chunked form carries from chunk to chunk; every tensor has the batch first.

    Args:
        subsampling: see :meth:`ConvSubsampling.initial_state`.
        layers: see :meth:`MultiHeadSSM.initial_state`, of each active layer.
    """

    subsampling: tuple[Tensor, ...]
    layers: list[list[Tensor]]


class MHSSMEncoder(nn.Module):
    """Convolutional subsampling and a stack of MH-SSM blocks.

    A supernet and a plain network are the same class: the active subnet is an argument of
    :meth:`forward`, and a network cut out by :func:`todm_sb.supernet.extract_subnet` simply has
    fewer layers of its own widths.

    Args:
        n_features: feature bins a frame.
        d_model: width of the residual stream.
        ffn_dims: FFN width of each layer (of the largest subnet); its length is the depth.
        n_heads, d_inner, state_size, n_stack, dt_range, spread: see :class:`MultiHeadSSM`.
        causal: see no future frame (for streaming), but for ``look_ahead``.
        look_ahead: see :class:`ConvSubsampling`.
        dual_mode: see the whole utterance, or run as a causal network, which leaves the backward
            SSMs out (after Yu et al. 2021, arXiv:2010.06030). Subsampling is causal in both modes.
        dropout: probability at full width.
        adaptive_dropout: see :class:`ElasticFFN`.
        dropout_width: see :class:`ElasticFFN`; the largest of ``ffn_dims`` when None.
        channels, time_strides: see :class:`ConvSubsampling`.

    Raises:
        ValueError: if it is to be both ``causal`` and ``dual_mode``, or a part refuses its sizes.
    """

    def __init__(
        self,
        n_features: int,
        d_model: int,
        ffn_dims: Sequence[int],
        n_heads: int = 8,
        d_inner: int | None = None,
        state_size: int = 16,
        n_stack: int = 1,
        dt_range: tuple[float, float] = (0.005, 0.5),
        causal: bool = False,
        look_ahead: int = 0,
        dual_mode: bool = False,
        dropout: float = 0.0,
        adaptive_dropout: bool = True,
        dropout_width: int | None = None,
        channels: tuple[int, ...] = (32, 32),
        time_strides: tuple[int, ...] = (2, 2),
        spread: float = 0.0,
    ) -> None:
        super().__init__()
        if causal and dual_mode:
            raise ValueError("a causal network has no dual_mode: set one of them")
        # What ``causal`` can be in forward and encode; first the mode that is not asked for.
        self.modes = (False, True) if dual_mode else (causal,)
        dropout_width = dropout_width or max(ffn_dims)
        self.subsampling = ConvSubsampling(
            n_features, d_model, channels, time_strides, causal or dual_mode, look_ahead
        )
        self.layers = nn.ModuleList(
            MHSSMLayer(
                MultiHeadSSM(
                    d_model, n_heads, d_inner, state_size, not causal, n_stack, dt_range, spread
                ),
                ElasticFFN(d_model, ffn_dim, dropout, adaptive_dropout, dropout_width),
                d_model,
                dropout,
            )
            for ffn_dim in ffn_dims
        )
        self.norm = nn.LayerNorm(d_model)

    @property
    def d_model(self) -> int:
        """Width of the output."""
        return self.norm.normalized_shape[0]

    @property
    def ffn_dims(self) -> tuple[int, ...]:
        """FFN width of each layer, at its largest."""
        return tuple(layer.ffn.d_hidden for layer in self.layers)

    def spectra(self, n_frames: int, causal: bool = False) -> list[list[Tensor]]:
        """SSM kernel spectra of every layer, to be shared by the subnets of a step.

        Args:
            n_frames: frames after subsampling.
            causal: run a dual-mode network as a causal one.
        """
        return [layer.ssm.spectra(n_frames, causal) for layer in self.layers]

    def forward(
        self,
        features: Tensor,
        lengths: Tensor,
        subnet: Subnet | None = None,
        causal: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Encodes a batch.

        Args:
            features: (batch, T, n_features).
            lengths: (batch,), integer feature frames of each utterance.
            subnet: layers and widths to use; None for all of them.
            causal: run a dual-mode network as a causal one.

        Returns:
            (batch, T', d_model), exactly zero on padded frames, and the lengths in frames T'.
        """
        frames, lengths = self.subsampling(features, lengths)
        return self.encode(frames, lengths, subnet, causal=causal), lengths

    def encode(
        self,
        frames: Tensor,
        lengths: Tensor,
        subnet: Subnet | None = None,
        spectra: list[list[Tensor]] | None = None,
        causal: bool = False,
    ) -> Tensor:
        """The elastic part: everything after subsampling.

        Args:
            frames: (batch, T', d_model), subsampled frames.
            lengths: (batch,), integer frames of each utterance.
            subnet: layers and widths to use; None for all of them.
            spectra: what :meth:`spectra` returned for T' frames, or None to compute it.
            causal: run a dual-mode network as a causal one; ``spectra``, where given, tell that.

        Returns:
            (batch, T', d_model), exactly zero on padded frames.

        Raises:
            IndexError: if the subnet names a layer that does not exist.
        """
        mask = frame_mask(lengths, frames.shape[1], self.norm.weight.dtype)
        x = frames
        for i, ffn_dim in self._active(subnet):
            x = self.layers[i](x, mask, ffn_dim, spectra and spectra[i], causal)
        return self.norm(x) * mask

    def initial_state(self, batch: int, subnet: Subnet | None = None) -> EncoderState:
        """What :meth:`chunk` starts from."""
        return EncoderState(
            self.subsampling.initial_state(batch),
            [self.layers[i].ssm.initial_state(batch) for i, _ in self._active(subnet)],
        )

    def block_operators(self, length: int = BLOCK) -> list[list[BlockOperators]]:
        """What :meth:`chunk` needs of every layer, to be shared by all chunks of all streams.

        Args:
            length: frames after subsampling that are computed at once.
        """
        return [layer.ssm.block_operators(length) for layer in self.layers]

    def chunk(
        self,
        features: Tensor,
        state: EncoderState,
        lengths: Tensor,
        subnet: Subnet | None = None,
        operators: list[list[BlockOperators]] | None = None,
    ) -> tuple[Tensor, Tensor, EncoderState]:
        """The same map for a causal network, chunk by chunk: any chunking gives the same frames.

        Args:
            features: (batch, L, n_features), any number L of frames.
            state: what the last call, or :meth:`initial_state`, returned.
            lengths: see :meth:`ConvSubsampling.chunk`.
            subnet: the same in every call.
            operators: what :meth:`block_operators` returned, or None to compute it, which takes
                most of the time of a short chunk.

        Returns:
            New frames (batch, n, d_model), n of any size or none, exactly zero after a stream's
            end; how many of them are each stream's (batch,); and the next state.

        Raises:
            ValueError: if the network is bidirectional, since it would need the future.
        """
        x, lengths, subsampling = self.subsampling.chunk(features, state.subsampling, lengths)
        layers = state.layers
        if x.shape[1]:
            layers = []
            for (i, ffn_dim), s in zip(self._active(subnet), state.layers, strict=True):
                x, s = self.layers[i].chunk(x, s, ffn_dim, operators and operators[i])
                layers.append(s)
        mask = frame_mask(lengths, x.shape[1], self.norm.weight.dtype)
        return self.norm(x) * mask, lengths, EncoderState(subsampling, layers)

    def _active(self, subnet: Subnet | None) -> list[tuple[int, int | None]]:
        """Index and FFN width of each active layer."""
        if subnet is None:
            return [(i, None) for i in range(len(self.layers))]
        return list(zip(subnet.layers, subnet.ffn_dims, strict=True))
