"""8-bit models."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from todm_sb.export.onnx import FEATURES, FILES, REQUIREMENTS, TOKENS
from todm_sb.nnet.sizes import axes_of_a_scale, in_8_bits
from todm_sb.utils.errors import ConfigError
from todm_sb.utils.ownership import new_export


def quantize_folder(source: str | Path, target: str | Path, card: str | None = None) -> None:
    """Writes the 8-bit form of a folder of :func:`todm_sb.export.onnx.export_onnx`.

    Matrix products are done in 8 bits, by onnxruntime's dynamic quantisation. All other weights
    (convolutions, SSMs, embedding, LSTM) are kept in 8 bits and unpacked when the file is loaded,
    which takes the operators of any engine. The filterbank stays as it is.

    Args:
        source: folder of float models.
        target: folder to write; made if need be. An earlier export there is replaced.
        card: text of the model card, if there is to be one.

    Raises:
        ConfigError: if ``source`` holds no models, or ``target`` what no export wrote (see
            :func:`todm_sb.utils.ownership.new_export`).
    """
    source = Path(source)
    names = sorted(path.name for path in source.glob("[!.]*.onnx"))
    if not names:
        raise ConfigError(f"{source} holds no ONNX models: write them with export_onnx first")
    with new_export(target, "onnx-int8", (*FILES, *names), card) as new:
        write_quantized(source, new)


def write_quantized(source: Path, target: Path) -> None:
    """As :func:`quantize_folder`, into a folder that is there and empty, as part of an export."""
    for path in sorted(source.glob("[!.]*.onnx")):
        if path.name == FEATURES:
            continue
        with tempfile.TemporaryDirectory() as folder:
            dynamic = Path(folder) / path.name
            # Shapes are known and operators few: there is nothing to prepare, or to advise.
            prepared = onnx.load(path)
            metadata = {x.key: x.value for x in prepared.metadata_props}
            add_pre_process_metadata(prepared)
            quantize_dynamic(
                prepared,
                dynamic,
                op_types_to_quantize=["MatMul"],
                per_channel=True,
                weight_type=QuantType.QInt8,
            )
            model = onnx.load(dynamic)
        helper.set_model_props(model, metadata)
        pack_weights(model)
        onnx.save(model, target / path.name)
    for name in (FEATURES, TOKENS, REQUIREMENTS):
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)


def pack_weights(model: onnx.ModelProto) -> None:
    """Replaces every float constant that :func:`todm_sb.nnet.sizes.in_8_bits` says by whole numbers
    and their scales.

    Args:
        model: changed in place.
    """
    graph, unpacking = model.graph, []
    for tensor in [t for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT]:
        weight = numpy_helper.to_array(tensor)
        if not in_8_bits(weight.shape):
            continue
        numbers, scale = packed(weight)
        name = tensor.name
        graph.initializer.remove(tensor)
        parts = {f"{name}_int8": numbers, f"{name}_scale": scale}
        graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in parts.items())
        as_float = f"{name}_float"
        unpacking += [
            helper.make_node(
                "Cast", [f"{name}_int8"], [as_float], as_float, to=onnx.TensorProto.FLOAT
            ),
            helper.make_node("Mul", [as_float, f"{name}_scale"], [name], f"{name}_unpacked"),
        ]
    # Nodes come in an order in which each finds its inputs made.
    nodes = [*unpacking, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def packed(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers within -127 and 127, and their scales.

    Args:
        weight: of any shape; see :func:`todm_sb.nnet.sizes.axes_of_a_scale`.
    """
    largest = np.abs(weight).max(axis=axes_of_a_scale(weight.shape), keepdims=True)
    scale = np.maximum(largest, np.finfo(np.float32).tiny) / 127
    return np.round(weight / scale).astype(np.int8), scale.astype(np.float32)
