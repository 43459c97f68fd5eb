"""What a spec says of precision: how a graph is converted, calibrated, and how right its answers must be."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from perfgate.records import AccuracyLimits, Name, Positive, Precision, Record, Text

Samples = Annotated[int, Meta(ge=1, le=100_000)]

# Where INT8 pays on TensorRT. Activations, Softmax, normalisation and Concat stay in floating point: TensorRT
# fuses or moves them as the layers around them want.
QUANTISED = (
    "Add", "AveragePool", "Conv", "ConvTranspose", "Gemm", "GlobalAveragePool", "MatMul", "MaxPool",
)  # fmt: skip


class PrecisionPolicy(Record):
    """`[precision]`. `exclude` are node names or operator types (shell patterns) that stay in FP32;
    `islands` keeps nodes in FP32 that calibration data drives near FP16's end; `keep_io` leaves inputs and
    outputs FP32. `graphs` names ready-made ONNX files by precision, which are then taken as they are."""

    keep_io: bool = True
    islands: bool = True
    exclude: Annotated[tuple[Name, ...], Meta(max_length=1_000)] = ()
    quantise: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=100)] = QUANTISED
    graphs: dict[Precision, Text] = {}


class Calibration(Record):
    """`[calibration]`. `data` is a `.npz`, a folder of `.npy`, or a `.py` with `samples(count, seed)`, beside
    the spec; without it inputs are drawn as `[inputs]` says."""

    method: Literal["minmax", "entropy", "percentile"] = "minmax"
    percentile: Annotated[float, Meta(gt=50, le=100)] = 99.99
    samples: Samples = 64
    data: Text = ""
    timeout_s: Positive = 1800


class AccuracyPolicy(AccuracyLimits):
    """`[accuracy]`: the thresholds, the data they are judged on (as for calibration, drawn with other seeds),
    and `metric`, a `.py` beside the spec with `score(inputs, outputs)` that returns one number, more is
    better."""

    samples: Samples = 16
    data: Text = ""
    metric: Text = ""

    def limits(self) -> AccuracyLimits:
        """The thresholds alone, as they travel with a case."""
        return AccuracyLimits(**{name: getattr(self, name) for name in AccuracyLimits.__struct_fields__})
