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

from todm_sb.export.onnx_features import FEATURES
from todm_sb.nnet.sizes import axes_of_a_scale, in_8_bits


def write_quantized(source: Path, target: Path) -> None:
    """Writes the 8-bit form of a folder of :func:`todm_sb.export.onnx.write_models`.

    Matrix products are done in 8 bits, by onnxruntime's dynamic quantisation. All other weights
    (convolutions, SSMs, embedding, LSTM) are kept in 8 bits and unpacked when the file is loaded,
    which takes the operators of any engine. The filterbank stays as it is.

    Args:
        source: of float models, and nothing else.
        target: a folder that is there and empty.
    """
    for path in sorted(source.iterdir()):
        if path.suffix != ".onnx" or path.name == FEATURES:
            shutil.copyfile(path, target / path.name)
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
