"""A small builder of ONNX graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

# LayerNormalization came with opset 17; every engine of the last years reads it.
OPSET = 17
IR_VERSION = 8

# What a node takes: the name of a value, or a constant.
Value = str | int | float | Sequence[int] | np.ndarray | torch.Tensor

TYPES = {"float": TensorProto.FLOAT, "int64": TensorProto.INT64}


class Graph:
    """Nodes and constants, gathered in order. Values are known by their names.

    Example:
        >>> g = Graph()
        >>> g.output("y", g("Add", g.input("x", "float", ["N", 3]), 1.0), "float", ["N", 3])
        >>> model = g.model("increment")

    Args:
        prefix: of all names, which a body must not share with the graph around it.
    """

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self._known: dict[tuple, str] = {}
        self._n = 0

    def __call__(self, op: str, *inputs: Value, outputs: int = 1, **attributes: Any) -> Any:
        """Adds a node.

        Returns:
            The name of its output, or a list of them where ``outputs`` is above 1.
        """
        names = [x if isinstance(x, str) else self.constant(x) for x in inputs]
        made = [self.name() for _ in range(outputs)]
        self.nodes.append(helper.make_node(op, names, made, made[0], **attributes))
        return made[0] if outputs == 1 else made

    def constant(self, value: Value, name: str | None = None) -> str:
        """Adds a constant: whole numbers as int64, others as float. Equal unnamed ones are kept
        once."""
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu().numpy()
        array = np.ascontiguousarray(value)
        array = array.astype(np.int64 if array.dtype.kind in "iu" else np.float32)
        key = (array.dtype.str, array.shape, array.tobytes())
        if name is None and key in self._known:
            return self._known[key]
        if name is None:
            name = self._known[key] = self.name()
        self.constants[name] = numpy_helper.from_array(array, name)
        return name

    def input(self, name: str, kind: str, shape: Sequence[int | str]) -> str:
        """Declares an input; named dimensions are dynamic."""
        self.inputs.append(helper.make_tensor_value_info(name, TYPES[kind], shape))
        return name

    def body(self, name: str, inputs: Sequence[str], outputs: Sequence[str]) -> onnx.GraphProto:
        """The graph as the body of a loop over float values."""
        taken, given = (
            [helper.make_tensor_value_info(x, TensorProto.FLOAT, None) for x in names]
            for names in (inputs, outputs)
        )
        return helper.make_graph(self.nodes, name, taken, given, list(self.constants.values()))

    def output(self, name: str, value: str, kind: str, shape: Sequence[int | str]) -> None:
        """Declares an output and the value that it gets."""
        self.nodes.append(helper.make_node("Identity", [value], [name], name))
        self.outputs.append(helper.make_tensor_value_info(name, TYPES[kind], shape))

    def model(self, name: str, metadata: dict[str, str] | None = None) -> onnx.ModelProto:
        """The finished model.

        Args:
            name: of the graph.
            metadata: written into the file.
        """
        constants = list(self.constants.values())
        graph = helper.make_graph(self.nodes, name, self.inputs, self.outputs, constants)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="todm_sb",
        )
        helper.set_model_props(model, metadata or {})
        onnx.checker.check_model(model)
        return model

    def size(self, x: str, axis: int) -> str:
        """Length of an axis, as a tensor of one integer."""
        return self("Gather", self("Shape", x), [axis])

    def slice(self, x: str, axis: int, begin: str | int, end: str | int, step: int = 1) -> str:
        """Part of an axis; ``begin`` and ``end`` are tensors of one integer, or integers."""
        ends = (v if isinstance(v, str) else [v] for v in (begin, end))
        return self("Slice", x, *ends, [axis], [step])

    def shape(self, *sizes: str | int) -> str:
        """A shape of integers and one-integer tensors."""
        known = [size for size in sizes if isinstance(size, int)]
        if len(known) == len(sizes):
            return self.constant(known)
        return self(
            "Concat", *(size if isinstance(size, str) else [size] for size in sizes), axis=0
        )

    def name(self) -> str:
        """A new name; short, since small models consist of names to a good part."""
        self._n += 1
        return f"{self.prefix}{self._n}"
