"""The child that converts one graph: `python -m perfgate.model.precision.convert_child REQUEST REPLY`.

A process of its own, because calibration holds gigabytes, and ONNX Runtime's tools print and log at will.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec

from perfgate.errors import CaseError
from perfgate.model.precision.convert import RANGE_SAMPLES, ConvertedModel, ConvertRequest
from perfgate.model.precision.data import Arrays, DataSet
from perfgate.model.precision.data_quality import spreads, warnings
from perfgate.model.precision.fp16 import Converted, convert_fp16, island_notes, overflowing
from perfgate.model.precision.int8 import quantise
from perfgate.model.precision.normalise import matching, prepare
from perfgate.util.files import file_digest
from perfgate.util.process import serve

STRONG_INT8_FP16_OPSET = 19  # the first whose Q/DQ nodes take FP16 scales


def convert(request: ConvertRequest) -> ConvertedModel:
    room = Path(request.room)
    prepared = room / "prepared.onnx"
    quantised = request.precision.startswith("int8")
    prepare(Path(request.onnx), prepared, quantised=quantised)
    calibrated = quantised or request.policy.islands
    started = time.perf_counter_ns()
    data = DataSet(request.data) if calibrated else None
    data_ns = time.perf_counter_ns() - started if quantised else 0
    made = room / "made.onnx"
    if request.precision == "fp16":
        done = _fp16(request, prepared, made, data)
    else:
        assert data is not None
        done = _int8(request, prepared, made, data)
    made.replace(request.target)
    return ConvertedModel(
        path=request.target,
        file_digest=file_digest(Path(request.target)),
        islands=done.islands,
        notes=done.notes,
        calibration_ns=data_ns + done.calibration_ns,
    )


def _fp16(request: ConvertRequest, source: Path, target: Path, data: DataSet | None) -> Converted:
    batches = None
    if data is not None and request.policy.islands:
        batches = _few(data)
    return convert_fp16(
        source,
        target,
        keep_io=request.policy.keep_io,
        exclude=request.policy.exclude,
        batches=batches,
    )


def _int8(request: ConvertRequest, prepared: Path, target: Path, data: DataSet) -> Converted:
    started = time.perf_counter_ns()
    against = DataSet(request.against)
    said = warnings(len(data) * data.batch_size, spreads(data), spreads(against))
    quantised = target.with_suffix(".int8.onnx")
    quantise(prepared, quantised, policy=request.policy, calibration=request.calibration, data=data, say=_say)
    took_ns = time.perf_counter_ns() - started
    done = _rest(request, prepared, target, data, said)
    return msgspec.structs.replace(done, calibration_ns=took_ns)


def _rest(
    request: ConvertRequest, prepared: Path, target: Path, data: DataSet, said: tuple[str, ...]
) -> Converted:
    """What is left to do with the quantised graph beside `target`."""
    quantised = target.with_suffix(".int8.onnx")
    if request.precision == "int8" or request.typing == "weak":
        quantised.replace(target)
        if request.precision == "int8":
            return Converted(notes=said)
        return _weak_islands(request, prepared, data, said)
    return _strong_fp16(request, quantised, target, data, said)


def _weak_islands(request: ConvertRequest, prepared: Path, data: DataSet, said: tuple[str, ...]) -> Converted:
    """What the builder must keep in FP32, where its flags and not the graph choose FP16."""
    import onnx

    model = onnx.load(str(prepared))
    hot = overflowing(prepared, model, _few(data)) if request.policy.islands else {}
    names = dict.fromkeys([*matching(model, request.policy.exclude), *hot])
    return Converted(islands=tuple(names), notes=(*said, *island_notes(hot)))


def _few(data: DataSet) -> list[Arrays]:
    return [data.batch(number) for number in range(min(RANGE_SAMPLES, len(data)))]


def _strong_fp16(
    request: ConvertRequest, quantised: Path, target: Path, data: DataSet, said: tuple[str, ...]
) -> Converted:
    import onnx

    model = onnx.load(str(quantised))
    try:
        model = onnx.version_converter.convert_version(model, STRONG_INT8_FP16_OPSET)
    except Exception as error:
        first = str(error).splitlines()[0]
        raise CaseError(
            f"the quantised graph cannot go to opset {STRONG_INT8_FP16_OPSET}: {first}"
        ) from error
    model.ir_version = 9  # opset 19 came with it
    newer = quantised.with_suffix(".opset.onnx")
    onnx.save_model(model, str(newer))
    done = _fp16(request, newer, target, data)
    return Converted(islands=done.islands, notes=(*said, *done.notes))


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    serve(ConvertRequest, convert)
