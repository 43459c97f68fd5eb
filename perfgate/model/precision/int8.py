"""INT8 by Q/DQ nodes: ONNX Runtime's static quantisation with the options that TensorRT needs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from perfgate.errors import CaseError
from perfgate.model.precision.data import Arrays, DataSet
from perfgate.model.precision.normalise import matching
from perfgate.model.precision.residual_adds import fix_residual_adds
from perfgate.model.precision_settings import Calibration, PrecisionPolicy

# Histograms hold every activation of a chunk at once.
_CHUNK_BYTES = 512 << 20
_WEIGHT_PLACE = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}


class _Reader:
    """Batches for ONNX Runtime's calibrators, in chunks: `set_range` says which batches come next."""

    def __init__(self, data: DataSet, say: Any) -> None:
        self._data, self._say = data, say
        self._numbers: Iterator[int] = iter(range(len(data)))

    def __len__(self) -> int:
        return len(self._data)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._numbers = iter(range(start_index, end_index))

    def get_next(self) -> Arrays | None:
        number = next(self._numbers, None)
        if number is None:
            return None
        if number % 16 == 0:
            self._say(f"calibrating: {number} of {len(self._data)} batches")
        return self._data.batch(number)

    def __iter__(self) -> _Reader:
        return self

    def __next__(self) -> Arrays:
        batch = self.get_next()
        if batch is None:
            raise StopIteration
        return batch


def quantise(
    prepared: Path,
    target: Path,
    *,
    policy: PrecisionPolicy,
    calibration: Calibration,
    data: DataSet,
    say: Any = lambda _: None,
) -> None:
    """Write the Q/DQ graph. Raises `CaseError` where a weight stays in FP32 or gets one scale for all
    channels."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    model = onnx.load(str(prepared))
    exclude = [*matching(model, policy.exclude), *_constant_additions(model)]
    wanted = _weighted(model, policy, exclude)
    method = {
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }[calibration.method]
    options: dict[str, Any] = {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        # TensorRT refuses an INT32 bias with scales of its own.
        "QuantizeBias": False,
        "QDQDisableWeightAdjustForInt32Bias": True,
        # 8.5 reads FP32 weights behind a Q/DQ pair, and folds them itself.
        "AddQDQPairToWeight": True,
        "DedicatedQDQPair": False,
        "ForceQuantizeNoInputCheck": True,
        # A quantised output would be rounded twice: the next quantised node quantises its own input.
        "OpTypesToExcludeOutputQuantization": list(policy.quantise),
        "CalibTensorRangeSymmetric": True,
        "CalibStridedMinMax": chunk_of(prepared, data, calibration.method),
    }
    if calibration.method == "percentile":
        options["CalibPercentile"] = calibration.percentile
    del model
    logging.getLogger().setLevel(logging.ERROR)  # its warnings are vague; what matters is checked below
    try:
        quantize_static(
            str(prepared),
            str(target),
            _Reader(data, say),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(policy.quantise),
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=exclude,
            calibrate_method=method,
            extra_options=options,
        )
    except CaseError:
        raise
    except Exception as error:
        raise CaseError(f"ONNX Runtime cannot quantise the graph: {str(error)[:500]}") from error
    model = onnx.load(str(target))
    check_weights(model, wanted)
    if fix_residual_adds(model):
        onnx.save_model(model, str(target))


def _constant_additions(model: Any) -> list[str]:
    """Additions of a constant: TensorRT fuses them into what stands before, and INT8 would only round. (ONNX
    Runtime fails on a quantised constant that two nodes share.)"""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in ("Add", "Mul", "Sub", "Div") and constants.intersection(node.input)
    ]


def chunk_of(prepared: Path, data: DataSet, method: str) -> int:
    """Batches to hold at once: the largest divisor of their number that fits, as ONNX Runtime wants it."""
    if method == "minmax":
        return len(data)  # two numbers a tensor and batch are kept, and batches are read one at a time
    each = max(1, _activation_bytes(prepared, data))
    limit = max(1, _CHUNK_BYTES // each)
    return next(size for size in range(min(limit, len(data)), 0, -1) if len(data) % size == 0)


def _activation_bytes(prepared: Path, data: DataSet) -> int:
    """About how many bytes all activations of a batch take, from inferred shapes with the batch's sizes."""
    import math

    import onnx

    model = onnx.load(str(prepared), load_external_data=False)
    for value in model.graph.input:
        batch = data.batch(0).get(value.name)
        if batch is not None:
            for axis, size in zip(value.type.tensor_type.shape.dim, batch.shape, strict=True):
                axis.dim_value = size
    del model.graph.value_info[:]
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = ([d.dim_value or 1 for d in v.type.tensor_type.shape.dim] for v in graph.value_info)
    return sum(4 * math.prod(shape) for shape in shapes)


def _weighted(model: Any, policy: PrecisionPolicy, exclude: list[str]) -> list[str]:
    """The nodes whose weights must end in INT8, one scale a channel."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in policy.quantise
        and node.name not in exclude
        and (place := _WEIGHT_PLACE.get(node.op_type)) is not None
        and node.input[place] in weights
        and len(next(one for one in model.graph.initializer if one.name == node.input[place]).dims) > 1
    ]


def check_weights(model: Any, wanted: list[str]) -> None:
    """Raise `CaseError` that names the first weight that is not INT8 with one scale a channel."""
    makers = {output: node for node in model.graph.node for output in node.output}
    nodes = {node.name: node for node in model.graph.node}
    sizes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for name in wanted:
        node = nodes.get(name)
        place = _WEIGHT_PLACE[node.op_type] if node else 0
        maker = makers.get(node.input[place]) if node else None
        if maker is None or maker.op_type != "DequantizeLinear":
            raise CaseError(
                f"the weight of {name!r} stayed in floating point after quantisation",
                fix=f"leave the node out: exclude = [{name!r}] in [precision]",
            )
        if len(sizes.get(maker.input[1], ())) != 1:
            raise CaseError(
                f"the weight of {name!r} got one scale for all channels",
                fix=f"leave the node out: exclude = [{name!r}] in [precision]",
            )
