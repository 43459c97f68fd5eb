"""What the model scripts share: weights that are equal on every machine, and a small ONNX writer."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from numpy.typing import NDArray

    Array = NDArray[np.float32]
    Shape = Sequence[int | str]

# ONNX's own defaults follow the installed package and do not load in older runtimes; these two do.
IR_VERSION = 8
OPSET = 17

# He initialisation (2 / fan-in) for centred weights: variance * fan-in, after a ReLU. A ReLU's mean would
# drown what differs between two inputs; trained batch norms subtract it, here a centred filter ignores
# it. What then passes is the ReLU's variance, about a third of that of its input, so 3 keeps the scale.
AFTER_RELU = 3


def draw(
    seed: int, name: str, shape: Sequence[int], std: float, *, mean: float = 0.0, centre: bool = False
) -> Array:
    """The weight `name` of the given shape: uniform with this mean and standard deviation, float32.

    A weight has a stream of its own, so that adding a layer changes no other. Uniform, because a
    draw is then a multiple of 2**-24 followed by single roundings: no libm, no order of summation,
    hence the same bits on every machine. `centre` takes the mean over all but the first axis away.
    """
    values = np.random.default_rng([seed, *name.encode()]).random(tuple(shape), dtype=np.float32)
    if centre:
        # Exact in float64 whatever the order: fewer than 2**29 multiples of 2**-24 below 1.
        middle = values.mean(axis=tuple(range(1, values.ndim)), dtype=np.float64, keepdims=True)
        values -= middle.astype(np.float32)
    else:
        values -= np.float32(0.5)
    values *= np.float32(std * math.sqrt(12))
    values += np.float32(mean)
    return values


def load(module: torch.nn.Module, weights: Mapping[str, Array]) -> torch.nn.Module:
    """The PyTorch module with `weights` as its state, in eval mode; a name that fits nothing is an error."""
    import torch

    counters = {name: value for name, value in module.state_dict().items() if "num_batches" in name}
    module.load_state_dict(counters | {name: torch.from_numpy(value) for name, value in weights.items()})
    return module.eval()


class Graph:
    """An ONNX model under construction. A node has one output, which carries the node's name.

    The message is filled in place: `onnx.helper` would copy the weights three times over.
    """

    def __init__(self, name: str) -> None:
        self._model = onnx.ModelProto(ir_version=IR_VERSION, opset_import=[helper.make_opsetid("", OPSET)])
        self._graph = self._model.graph
        self._graph.name = name
        self._constants: set[str] = set()

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """An initializer; stating the same name again refers to the first."""
        if name not in self._constants:
            self._constants.add(name)
            raw = value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes()
            dtype = helper.np_dtype_to_tensor_dtype(value.dtype)
            self._graph.initializer.add(name=name, data_type=dtype, dims=value.shape, raw_data=raw)
        return name

    def node(self, op: str, name: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """A node named `name`; its output's name, which is `output` for an output of the graph."""
        self._graph.node.append(helper.make_node(op, inputs, [output or name], name, **attributes))
        return output or name

    def write(
        self, path: str, inputs: Mapping[str, tuple[int, Shape]], outputs: Mapping[str, tuple[int, Shape]]
    ) -> None:
        """Write the model; inputs and outputs are (ONNX element type, shape) by name."""
        for values, field in ((inputs, self._graph.input), (outputs, self._graph.output)):
            field.extend(helper.make_tensor_value_info(name, *value) for name, value in values.items())
        Path(path).write_bytes(self._model.SerializeToString(deterministic=True))
