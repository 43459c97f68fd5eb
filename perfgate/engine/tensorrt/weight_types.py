"""In which types an opaque engine holds its graph's weights: by looking for them in its bytes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

_TENSORS = 24
_LEAST_ELEMENTS = 4096  # below it are biases and scales, of which kernels keep copies of their own
_RUN, _ALIGNED = 4, 8  # elements: what layouts that kernels read by vectors keep together


def found_share(plan: bytes, onnx_file: Path) -> dict[str, float]:
    """The share of stored weights (elements) by type, `fp16` and `fp32`; empty where less than half of what
    was looked for was found.

    Of up to 24 weights spread over the graph, four neighbours along the last or the first axis are looked for
    in both types: four random FP16 numbers have some fifty random bits, so that in 400 MB they are found by
    chance once in ten million. Weights that a builder scaled, folded or laid out in smaller pieces are not
    found. What is stored in both types counts in both.
    """
    stored: Counter[str] = Counter()
    looked_for = found = 0
    for weight in _weights(onnx_file):
        runs = list(_runs(weight))
        if not runs:
            continue
        looked_for += 1
        kinds = {kind for kind in ("float16", "float32") if any(_is_in(plan, run, kind) for run in runs)}
        found += bool(kinds)
        stored.update(dict.fromkeys(kinds, weight.size))
    if not found or 2 * found < looked_for:
        return {}
    total = sum(stored.values())
    return {
        f"fp{kind.removeprefix('float')}": round(size / total, 4) for kind, size in sorted(stored.items())
    }


def _weights(onnx_file: Path) -> Iterator[np.ndarray[Any, Any]]:
    """Weights of the graph, spread over it."""
    import onnx
    from onnx import TensorProto, numpy_helper
    from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

    graph = onnx.load(str(onnx_file), load_external_data=False).graph
    fitting = [
        tensor
        for tensor in graph.initializer
        if tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16)
        and len(tensor.dims) > 1
        and math.prod(tensor.dims) >= _LEAST_ELEMENTS
    ]
    count = min(_TENSORS, len(fitting))
    for number in range(count):
        tensor = fitting[number * len(fitting) // count]
        if uses_external_data(tensor):
            load_external_data_for_tensor(tensor, str(onnx_file.parent))
        yield numpy_helper.to_array(tensor)


def _runs(weight: np.ndarray[Any, Any]) -> Iterator[np.ndarray[Any, Any]]:
    """Neighbours in the middle of a weight, along its last and its first axis."""
    import numpy as np

    for line in (weight.reshape(-1, weight.shape[-1]), weight.reshape(weight.shape[0], -1).T):
        start = line.shape[1] // 2 // _ALIGNED * _ALIGNED
        run = line[len(line) // 2, start : start + _RUN]
        if len(np.unique(run.astype("float16"))) == _RUN:  # ones are everywhere
            yield run


def _is_in(plan: bytes, run: np.ndarray[Any, Any], kind: str) -> bool:
    return plan.find(run.astype(kind).tobytes()) >= 0
