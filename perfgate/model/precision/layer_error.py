"""Which layers lose the most: every tensor of a case's graph against the FP32 graph's, on the same inputs.

`worst_layers` is the controller's side of `python -m perfgate.model.precision.layer_error REQUEST REPLY`.

Conversion keeps the names of tensors, so that the two graphs can be held against each other one by one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from perfgate.model.precision.data import DataRequest, DataSet
from perfgate.model.precision.probe import Arrays, element_types, keep_fp16, plain_session
from perfgate.records import LayerLoss, Record, Text
from perfgate.util.process import call_child, serve

# Layers that compute. What moves data, or follows from such a layer one to one, would only repeat its loss.
OPERATORS = (
    "Add", "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "Erf", "Gemm", "GlobalAveragePool",
    "LayerNormalization", "MatMul", "Mul", "ReduceMean", "Sigmoid", "Softmax", "Tanh",
)  # fmt: skip


class LayersRequest(Record, kw_only=True):
    """The two graphs, the data and where a data script keeps it; the `most` that lose most are wanted."""

    reference: Text
    emitted: Text
    data: DataRequest
    most: int = 10


class LayersReply(Record):
    layers: tuple[LayerLoss, ...] = ()


def worst_layers(request: LayersRequest, *, timeout_s: int) -> tuple[LayerLoss, ...]:
    """The layers that lose most, the worst first. Raises `CaseError`."""
    return call_child(
        "perfgate.model.precision.layer_error", request, LayersReply, timeout_s=timeout_s
    ).layers


def _answer(request: LayersRequest) -> LayersReply:
    data = DataSet(request.data)
    found = layer_losses(Path(request.reference), Path(request.emitted), data)
    return LayersReply(layers=tuple(found[: request.most]))


def layer_losses(reference: Path, emitted: Path, batches: Iterable[Arrays]) -> list[LayerLoss]:
    """All computing layers that both graphs have, the one that lost most first."""
    import numpy as np
    import onnx

    one, other = _loaded(reference), _loaded(emitted)
    known = {tensor for node in one.graph.node for tensor in node.output}
    # Named by the node of the case's graph: in it batch norms are folded.
    layers = {
        tensor: node
        for node in onnx.load(str(emitted), load_external_data=False).graph.node
        for tensor in node.output[:1]
        if node.op_type in OPERATORS and tensor in known
    }
    outputs = list(layers)
    first, second = _session(one, outputs), _session(other, outputs)
    signal, noise = np.zeros(len(outputs)), np.zeros(len(outputs))
    for batch in batches:
        pairs = zip(first.run(None, dict(batch)), second.run(None, dict(batch)), strict=True)
        for place, (r, h) in enumerate(pairs):
            r64, h64 = r.astype(np.float64), h.astype(np.float64)
            signal[place] += np.square(r64).sum()
            noise[place] += np.square(np.nan_to_num(r64 - h64, nan=1e30, posinf=1e30, neginf=1e30)).sum()
    found = [
        LayerLoss(
            node=layers[tensor].name or tensor,
            operator=layers[tensor].op_type,
            sqnr_db=_decibels(float(signal[place]), float(noise[place])),
        )
        for place, tensor in enumerate(outputs)
    ]
    return sorted(found, key=lambda loss: loss.sqnr_db)


def _decibels(signal: float, noise: float) -> float:
    if not noise:
        return 400.0
    return max(-400.0, 10 * math.log10(signal / noise)) if signal else -400.0


def _loaded(path: Path) -> Any:
    import onnx

    model = onnx.load(str(path))
    keep_fp16(model, element_types(model))
    return model


def _session(model: Any, outputs: list[str]) -> Any:
    import onnx

    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    return plain_session(model.SerializeToString())


if __name__ == "__main__":
    serve(LayersRequest, _answer)
