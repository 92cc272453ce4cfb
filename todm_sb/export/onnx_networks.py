"""Encoder, predictor and joiner as ONNX models."""

from __future__ import annotations

import onnx
import torch
from speechbrain.processing.features import InputNormalization
from torch import Tensor, nn

from todm_sb.export.graph import Graph
from todm_sb.export.onnx_layers import (
    END,
    Blocks,
    EncoderLayers,
    frame_mask,
    layer_norm,
    linear,
    silu,
)
from todm_sb.nnet.encoders import onnx_form, streaming
from todm_sb.nnet.features import check_exportable
from todm_sb.nnet.predictor import LSTMPredictor, StatelessPredictor
from todm_sb.nnet.subsampling import KERNEL, ConvSubsampling
from todm_sb.nnet.transducer import Transducer
from todm_sb.utils.errors import ConfigError

# Frames of a block of the chunked form: where long, more work within a block, and larger matrices
# that engines make when they load the file; where short, more steps from block to block. For 5 s of
# speech, 6 layers of 288 channels took 10.6, 9.0 and 10.6 ms with 32, 16 and 8, and 153, 87 and
# 60 MB (onnxruntime, one thread).
BLOCK = 16
STREAMING_BLOCK = 8


def encoder_model(
    model: Transducer,
    normalize: InputNormalization,
    metadata: dict[str, str] | None = None,
    block: int = BLOCK,
) -> onnx.ModelProto:
    """The encoder for whole utterances, from raw features to what the joiner takes.

    Inputs ``x`` (N, T, features), raw, and ``x_lens`` (N,), whole numbers; outputs ``encoder_out``
    (N, T', d_joint) and ``encoder_out_lens`` (N,).

    Args:
        model: a network without parts that a subnet leaves out.
        normalize: of the features; by global statistics or by each utterance's own.
        metadata: written into the file.
        block: frames of a block.

    Raises:
        ConfigError: if the encoder is of a kind that has no ONNX form, or the features are
            normalised in another way.
    """
    encoder = onnx_form(model.encoder)
    subsampling = encoder.subsampling
    g = Graph()
    x = g.input("x", "float", ["N", "T", subsampling.n_features])
    lengths = g.input("x_lens", "int64", ["N"])
    x = g("Unsqueeze", _normalise(g, x, lengths, normalize), [1])
    left, right = subsampling.time_padding
    for i, stride in enumerate(subsampling.time_strides):
        mask = g("Unsqueeze", frame_mask(g, lengths, g.size(x, 2)), [1])
        x = _convolve(g, g("Mul", x, mask), subsampling, i, (left, right))
        lengths = g("Div", g("Add", lengths, stride - 1), stride)
    x = _project(g, x, subsampling)
    mask = frame_mask(g, lengths, g.size(x, 1))
    x, _ = encoder.to_onnx(EncoderLayers(g, Blocks.of(g, x, block), mask), x)
    x = g("Mul", x, mask)
    x = linear(g, x, model.joiner.project_encoder, "joiner.project_encoder")
    g.output("encoder_out", x, "float", ["N", "T_out", _d_joint(model)])
    g.output("encoder_out_lens", lengths, "int64", ["N"])
    return g.model("encoder", metadata)


def streaming_encoder_model(
    model: Transducer,
    normalize: InputNormalization,
    metadata: dict[str, str] | None = None,
    block: int = STREAMING_BLOCK,
) -> onnx.ModelProto:
    """The encoder for the next chunk of each stream.

    Inputs ``x`` (N, T, features), raw, enough of them for a new frame; ``x_lens`` (N,), feature
    frames of each whole stream, anything huge while not yet known; and the state: ``seen`` (N,),
    ``context_0`` ... and ``ssm_0_0`` ..., all of it zeros at the beginning, contexts of as many
    frames as the convolutions are padded with before the first. Outputs ``encoder_out``
    (N, T', d_joint), ``encoder_out_lens`` (N,), how many frames are each stream's, and the next
    state, named as the state with ``next_`` in front.

    Args:
        model: a causal network without parts that a subnet leaves out.
        normalize: of the features, by global statistics.
        metadata: written into the file.
        block: frames of a block.

    Raises:
        ConfigError: if the network is not causal, has no ONNX form, or normalises whole utterances.
    """
    if normalize.norm_type != "global":
        raise ConfigError("features that are normalised over utterances cannot be streamed")
    initial = streaming(model.encoder).initial_state(1)
    encoder = onnx_form(model.encoder)
    subsampling = encoder.subsampling
    g = Graph()
    x = g.input("x", "float", ["N", "T", subsampling.n_features])
    lengths = g.input("x_lens", "int64", ["N"])
    seen = g.input("seen", "int64", ["N"])
    next_state = [("next_seen", g("Add", seen, g.size(x, 1)), "int64", ["N"])]
    x = g("Unsqueeze", _normalise(g, x, lengths, normalize), [1])
    x, lengths, seen, next_contexts = _subsample_chunk(g, x, lengths, seen, subsampling)
    shapes = [[["N", *state.shape[1:]] for state in group] for group in initial.layers]
    states = [
        [g.input(f"ssm_{layer}_{i}", "float", shape) for i, shape in enumerate(group)]
        for layer, group in enumerate(shapes)
    ]
    blocks = Blocks.of(g, x, block)
    x, next_states = encoder.to_onnx(EncoderLayers(g, blocks), x, states)
    next_state += next_contexts
    for layer, group in enumerate(next_states):
        for i, state in enumerate(group):
            next_state.append((f"next_ssm_{layer}_{i}", state, "float", shapes[layer][i]))
    x = linear(g, x, model.joiner.project_encoder, "joiner.project_encoder")
    ready = g("Min", g("Max", g("Sub", lengths, seen), 0), blocks.n_frames)
    g.output("encoder_out", x, "float", ["N", "T_out", _d_joint(model)])
    g.output("encoder_out_lens", ready, "int64", ["N"])
    for output in next_state:
        g.output(*output)
    return g.model("streaming_encoder", metadata)


def _subsample_chunk(
    g: Graph, x: str, lengths: str, seen: str, module: ConvSubsampling
) -> tuple[str, str, str, list[tuple[str, str, str, list]]]:
    """The subsampling of a chunk (N, 1, T, features): frames (N, T', d_model), how many there are
    of the stream and how many were seen before, and the outputs that carry the contexts on."""
    next_contexts = []
    n_bins = module.n_features
    for i, stride in enumerate(module.time_strides):
        channels = module.convolutions()[i].in_channels
        context = g.input(f"context_{i}", "float", ["N", channels, f"K_{i}", n_bins])
        kept = ["N", channels, f"next_K_{i}", n_bins]
        n_bins = -(-n_bins // 2)
        mask = g("Unsqueeze", frame_mask(g, g("Sub", lengths, seen), g.size(x, 2)), [1])
        x = g("Concat", context, g("Mul", x, mask), axis=2)
        y = _convolve(g, x, module, i, (0, 0))
        used = g("Mul", g.size(y, 2), [stride])
        kept_frames = g.slice(x, 2, used, END)
        next_contexts.append((f"next_context_{i}", kept_frames, "float", kept))
        # Rounded towards zero, not down, where no frame has come yet.
        left = module.time_padding[0]
        seen = g("Max", g("Div", g("Add", seen, left - KERNEL + stride), stride), 0)
        lengths = g("Div", g("Add", lengths, stride - 1), stride)
        x = y
    return _project(g, x, module), lengths, seen, next_contexts


def predictor_model(model: Transducer) -> onnx.ModelProto:
    """The predictor, called "decoder" by recognisers, from labels to what the joiner takes.

    A stateless one has the input ``y`` (N, context), whole numbers, the last labels (blank, or -1,
    before the first one), and the output ``decoder_out`` (N, d_joint). That of an LSTM is ``y``
    (N, 1), the last label, with the states ``h`` and ``c`` (N, layers, d), zeros at the beginning,
    and outputs ``next_h`` and ``next_c``. The sizes of the vocabulary and the context are in the
    metadata, as sherpa-onnx wants them.
    """
    g = Graph()
    predictor = model.predictor
    context = getattr(predictor, "context", 1)
    labels = g("Max", g.input("y", "int64", ["N", context]), 0)
    weight = g.constant(predictor.embedding.weight, "predictor.embedding.weight")
    x = g("Gather", weight, labels)
    states: dict[str, str] = {}
    state_shape: list[int | str] = []
    if isinstance(predictor, StatelessPredictor):
        # One output frame: the convolution is a weighted sum over the labels.
        taps = g.constant(predictor.conv.weight.squeeze(1).T, "predictor.conv.weight")
        y = g("Relu", g("ReduceSum", g("Mul", x, taps), [1], keepdims=0))
    else:
        y, states = _lstm(g, x, predictor)
        state_shape = ["N", predictor.lstm.num_layers, predictor.d_model]
    y = linear(g, y, model.joiner.project_predictor, "joiner.project_predictor")
    g.output("decoder_out", y, "float", ["N", _d_joint(model)])
    for name, state in states.items():
        g.output(name, state, "float", state_shape)
    sizes = {"vocab_size": model.joiner.vocab_size, "context_size": context}
    return g.model("decoder", {key: str(size) for key, size in sizes.items()})


def joiner_model(model: Transducer) -> onnx.ModelProto:
    """What remains to be done at each node: ``encoder_out`` and ``decoder_out`` (N, d_joint) ->
    ``logit`` (N, vocabulary). d_joint is in the metadata, as sherpa-onnx wants it."""
    g = Graph()
    inputs = [g.input(x, "float", ["N", _d_joint(model)]) for x in ("encoder_out", "decoder_out")]
    logit = linear(g, g("Tanh", g("Add", *inputs)), model.joiner.output, "joiner.output")
    g.output("logit", logit, "float", ["N", model.joiner.vocab_size])
    return g.model("joiner", {"joiner_dim": str(_d_joint(model))})


def _d_joint(model: Transducer) -> int:
    return model.joiner.output.in_features


def _normalise(g: Graph, x: str, lengths: str, normalize: InputNormalization) -> str:
    check_exportable(normalize)
    if normalize.norm_type == "global":
        mean = g.constant(normalize.glob_mean, "features.mean")
        std = g.constant(normalize.glob_std.clamp(min=normalize.epsilon), "features.std")
        return g("Div", g("Sub", x, mean), std)
    mask = frame_mask(g, lengths, g.size(x, 1))
    n_frames = g("ReduceSum", mask, [1])
    mean = g("Div", g("ReduceSum", g("Mul", x, mask), [1]), n_frames)
    x = g("Sub", x, mean)
    square = g("Mul", g("Mul", x, mask), x)
    std = g("Sqrt", g("Div", g("ReduceSum", square, [1]), n_frames))
    return g("Div", x, g("Max", std, normalize.epsilon))


def _convolve(
    g: Graph, x: str, module: ConvSubsampling, i: int, time_padding: tuple[int, int]
) -> str:
    conv = module.convolutions()[i]
    weights = (g.constant(getattr(conv, p), f"convs.{i}.{p}") for p in ("weight", "bias"))
    before, after = time_padding
    strides = [module.time_strides[i], conv.stride[1]]
    return silu(g, g("Conv", x, *weights, strides=strides, pads=[before, 1, after, 1]))


def _project(g: Graph, x: str, module: ConvSubsampling) -> str:
    x = g("Transpose", x, perm=[0, 2, 1, 3])
    x = g("Reshape", x, [0, 0, module.projection.in_features])
    return layer_norm(g, linear(g, x, module.projection, "projection"), module.norm, "input_norm")


def _lstm(g: Graph, x: str, predictor: LSTMPredictor) -> tuple[str, dict[str, str]]:
    lstm = predictor.lstm
    n_layers, d_model = lstm.num_layers, lstm.hidden_size
    shape: list[int | str] = ["N", n_layers, d_model]
    h, c = (g("Transpose", g.input(s, "float", shape), perm=[1, 0, 2]) for s in ("h", "c"))
    x = g("Transpose", x, perm=[1, 0, 2])
    new_h, new_c = [], []
    for i in range(n_layers):
        weights = [_gates(lstm, f"{p}_l{i}") for p in ("weight_ih", "weight_hh")]
        bias = torch.cat([_gates(lstm, f"{p}_l{i}") for p in ("bias_ih", "bias_hh")])
        x, h_i, c_i = g(
            "LSTM",
            x,
            *(
                g.constant(w.unsqueeze(0), f"lstm.{i}.{n}")
                for w, n in zip(weights, "WR", strict=True)
            ),
            g.constant(bias.unsqueeze(0), f"lstm.{i}.B"),
            "",
            g.slice(h, 0, i, i + 1),
            g.slice(c, 0, i, i + 1),
            outputs=3,
            hidden_size=d_model,
        )
        x = g("Squeeze", x, [1])
        new_h.append(h_i)
        new_c.append(c_i)
    states = {
        name: g("Transpose", g("Concat", *s, axis=0), perm=[1, 0, 2])
        for name, s in (("next_h", new_h), ("next_c", new_c))
    }
    return g("Squeeze", x, [0]), states


def _gates(lstm: nn.LSTM, name: str) -> Tensor:
    """PyTorch keeps the gates in the order i, f, g, o; ONNX wants i, o, f, g."""
    i, f, g, o = getattr(lstm, name).chunk(4)
    return torch.cat([i, o, f, g])
