"""From a model's FP32 file to the file of a case's precision, by digest.

Two emissions: *weak* for TensorRT before 10, which reads no FP16 scales, so that an `int8+fp16` graph keeps
its floating-point part in FP32 and the builder's flags do the rest; *strong* for everything newer and for
ONNX Runtime, where the graph says it all. What was made is known by a digest of its sources, so that an
unchanged model is never converted to find out that it is unchanged.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from perfgate.errors import CaseError, DataError
from perfgate.model.distributions import ABSENT, installed_version
from perfgate.model.graph import Graph, read_graph
from perfgate.model.inputs import input_digest
from perfgate.model.observed import digest_cache
from perfgate.model.onnx_file import SourceModel
from perfgate.model.precision.data import CALIBRATION_SEED, EVALUATION_SEED, DataRequest
from perfgate.model.precision.samples import Samples, samples_of
from perfgate.model.precision_settings import Calibration, PrecisionPolicy
from perfgate.model.sources import Sources
from perfgate.model.spec import ModelSpec
from perfgate.records import Count, InputData, Name, Precision, Record, Tensor, Text, digest
from perfgate.util.files import file_digest, read_record, record_json, store_lock, write_text
from perfgate.util.process import call_child

# Raised when the same sources would make another graph; what was made before is then made anew.
EMISSION_VERSION = 1
# Of what is quantised. 2: residual sums add a convolution's result unrounded; 3: convolutions state kernels.
INT8_EMISSION_VERSION = 3
RANGE_SAMPLES = 4
_FACTS_LIMIT_BYTES = 4 << 20
Typing = Literal["weak", "strong"]


class ConvertedModel(Record):
    """The ONNX file of one precision. `islands` are nodes that stay in FP32; `notes` are for reports.
    `total_ns` is how long the conversion took when it was made, `calibration_ns` of it the calibration; both
    are 0 where an earlier perfgate made it. `converted` tells a graph that was converted from the model's own
    or a ready-made one, `calibrated` one with calibrated scales; `cached`: this was not now."""

    path: Text
    file_digest: Text = ""
    islands: tuple[Text, ...] = ()
    notes: tuple[Text, ...] = ()
    total_ns: Count = 0
    calibration_ns: Count = 0
    converted: bool = False
    calibrated: bool = False
    cached: bool = False


class ConvertRequest(Record, kw_only=True):
    """One conversion, as it travels to the child. `data` is the calibration data, `against` the evaluation
    data that it is held against."""

    onnx: Text
    target: Text = ""
    precision: Precision
    typing: Typing
    policy: PrecisionPolicy
    calibration: Calibration
    data: DataRequest
    against: DataRequest
    room: Text = ""


class _Identity(Record):
    version: int
    precision: Precision
    typing: Typing
    policy: PrecisionPolicy
    calibration: Calibration
    data: dict[str, str]
    inputs: dict[Name, InputData]
    shape: dict[Name, int]
    runtime: str


def runtime_version() -> str:
    """The installed ONNX Runtime, which makes the graphs; `absent` where there is none."""
    names = ("onnxruntime", "onnxruntime-gpu")
    return next((found for name in names if (found := installed_version(name)) != ABSENT), ABSENT)


def calibration_samples(spec: ModelSpec, precision: Precision, sources: Sources) -> Samples:
    """The data that a precision's graph is calibrated on, or that tells which nodes stay in FP32. Raises
    `CaseError` for a data script that fails."""
    if precision in spec.precision.graphs or not (precision.startswith("int8") or spec.precision.islands):
        return Samples()
    return samples_of(spec, spec.calibration.data, spec.calibration.samples, CALIBRATION_SEED, sources)


def evaluation_samples(spec: ModelSpec, sources: Sources) -> Samples:
    """The data that answers are judged on. Raises `CaseError` for a data script that fails."""
    return samples_of(spec, spec.accuracy.data, spec.accuracy.samples, EVALUATION_SEED, sources)


def precision_digest(spec: ModelSpec, precision: Precision, typing: Typing, sources: Sources) -> str:
    """The digest of everything beside the FP32 graph that decides a precision's graph; empty for FP32. Raises
    `CaseError` for a data script that fails, `SpecError` for a ready-made graph that does not parse."""
    if ready := spec.precision.graphs.get(precision):
        return read_graph(spec.folder / ready, digest_cache(sources.store)).onnx_digest
    if precision == "fp32":
        return ""
    quantised = precision.startswith("int8")
    # Settings of the other precisions, and where data lies, change nothing.
    unused = Calibration()
    policy = PrecisionPolicy(
        keep_io=spec.precision.keep_io,
        islands=spec.precision.islands,
        exclude=spec.precision.exclude,
        quantise=spec.precision.quantise if quantised else PrecisionPolicy().quantise,
    )
    method = spec.calibration if quantised else unused
    identity = _Identity(
        version=INT8_EMISSION_VERSION if quantised else EMISSION_VERSION,
        precision=precision,
        typing=typing if precision == "int8+fp16" else "strong",
        policy=policy,
        calibration=Calibration(method=method.method, percentile=method.percentile, samples=method.samples),
        data=calibration_samples(spec, precision, sources).identity,
        inputs={name: input_digest(spec.folder, data) for name, data in spec.inputs.items()},
        shape={name: dim.opt for name, dim in spec.dims.items()},
        runtime=runtime_version(),
    )
    return digest(identity)


def convert_model(
    spec: ModelSpec,
    model: SourceModel,
    precision: Precision,
    typing: Typing,
    sources: Sources,
    say: Callable[[str], None] = lambda _: None,
) -> ConvertedModel:
    """The graph of a precision, converted into the store when it is not there yet. Raises `CaseError`."""
    if ready := spec.precision.graphs.get(precision):
        path = (spec.folder / ready).resolve()
        return ConvertedModel(
            path=str(path), file_digest=file_digest(path), notes=(f"ready-made graph {ready}",)
        )
    if precision == "fp32":
        return ConvertedModel(path=model.path, file_digest=model.graph.file_digest)
    if runtime_version() == "absent":
        raise CaseError(
            f"{precision.upper()} is made by ONNX Runtime's tools, and onnxruntime is not installed",
            fix="pip install 'perfgate[cpu]'",
        )
    key = digest([model.graph.onnx_digest, precision_digest(spec, precision, typing, sources)])
    home = sources.store / "precision" / key[:32]
    with store_lock(home):
        facts = home / "emission.json"
        if (made := _made_before(facts)) is not None:
            return _report(made, precision, cached=True)
        say(f"{spec.name}: converting the graph to {precision.upper()}")
        with tempfile.TemporaryDirectory(prefix="convert-", dir=home) as room:
            request = _request(spec, model, precision, typing, sources)
            request = msgspec.structs.replace(
                request, target=str((home / "model.onnx").resolve()), room=str(Path(room).resolve())
            )
            started = time.perf_counter_ns()
            emission = call_child(
                "perfgate.model.precision.convert_child",
                request,
                ConvertedModel,
                timeout_s=spec.calibration.timeout_s,
            )
        took_ns = time.perf_counter_ns() - started
        emission = msgspec.structs.replace(emission, total_ns=took_ns)
        write_text(facts, record_json(emission))
        return _report(emission, precision, cached=False)


def _report(emission: ConvertedModel, precision: Precision, *, cached: bool) -> ConvertedModel:
    """The emission with what its file does not say, which may be an earlier perfgate's."""
    calibrated = precision.startswith("int8")
    return msgspec.structs.replace(emission, converted=True, calibrated=calibrated, cached=cached)


def _made_before(facts: Path) -> ConvertedModel | None:
    try:
        known = read_record(facts, ConvertedModel, limit_bytes=_FACTS_LIMIT_BYTES)
        return known if file_digest(Path(known.path)) == known.file_digest else None
    except (DataError, OSError):
        return None


def _request(
    spec: ModelSpec, model: SourceModel, precision: Precision, typing: Typing, sources: Sources
) -> ConvertRequest:
    """The conversion, without the places that it writes to."""
    quantised = precision.startswith("int8")
    shape = calibration_shape(spec, model.graph)
    samples = spec.calibration.samples if quantised else min(RANGE_SAMPLES, spec.calibration.samples)
    data = calibration_samples(spec, precision, sources).path
    against = evaluation_samples(spec, sources).path if quantised else ""
    return ConvertRequest(
        onnx=model.path,
        precision=precision,
        typing=typing,
        policy=spec.precision,
        calibration=spec.calibration,
        data=data_request(spec, model.graph, shape, data, samples=samples, seed=CALIBRATION_SEED),
        against=data_request(spec, model.graph, shape, against, samples=RANGE_SAMPLES, seed=EVALUATION_SEED),
    )


def calibration_shape(spec: ModelSpec, graph: Graph) -> dict[str, int]:
    """Sizes of the named dimensions to calibrate at: one sample at a time, the profile's best elsewhere."""
    leading = {value.axes[0] for value in graph.inputs if value.axes}
    return {name: dim.min if name in leading else dim.opt for name, dim in spec.dims.items()}


def data_request(
    spec: ModelSpec,
    graph: Graph,
    shape: dict[str, int],
    data: str,
    *,
    samples: int,
    seed: int,
    first_as_is: bool = False,
) -> DataRequest:
    """Batches of the data that lie at a path (empty: they are drawn) at a shape."""
    tensors = tuple(
        Tensor(
            name=value.name,
            dtype=value.dtype,
            shape=tuple(shape[axis] if isinstance(axis, str) else axis for axis in value.axes),
        )
        for value in graph.inputs
    )
    return DataRequest(
        tensors=tensors,
        inputs=spec.inputs,
        folder=str(spec.folder.resolve()),
        path=data,
        samples=samples,
        seed=seed,
        first_as_is=first_as_is,
    )
