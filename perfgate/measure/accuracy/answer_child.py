"""The process that answers: `python -m perfgate.measure.accuracy.answer_child REQUEST REPLY`.

It runs a model over the evaluation data and writes each output, batch by batch, to `<out>/<number>.npy`.
The model is an engine of the case's backend, or an ONNX file: in plain FP32 for the reference, or, where
the backend's machine has no FP16 arithmetic, rounded to FP16 wherever the graph says so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from perfgate.engine import get_backend
from perfgate.errors import CaseError
from perfgate.measure.launch import EngineTarget
from perfgate.model.precision.data import DataRequest, DataSet
from perfgate.model.precision.probe import Arrays
from perfgate.records import Count, Name, Record, Text
from perfgate.util.process import serve

Answer: TypeAlias = Callable[[Arrays], Arrays]


class AnswerRequest(Record, kw_only=True):
    """What to run and on what: `engine`, or else `onnx` (`faithful`: rounding to FP16). `out` is
    where the outputs go."""

    data: DataRequest
    out: Text
    engine: EngineTarget | None = None
    onnx: Text = ""
    faithful: bool = False


class Answers(Record):
    """The names of the outputs, in the order of their files, and how many batches of how many samples.
    `took_ns` is kept with the reference's; 0 where an earlier perfgate wrote it."""

    outputs: tuple[Name, ...]
    batches: int
    batch_size: int
    took_ns: Count = 0


def answer(request: AnswerRequest) -> Answers:
    import numpy as np

    data = DataSet(request.data)
    files: dict[str, Any] = {}
    with _model(request) as run:
        for number in range(len(data)):
            for name, array in run(data.batch(number)).items():
                if name not in files:
                    path = Path(request.out) / f"{len(files)}.npy"
                    shape = (len(data), *array.shape)
                    files[name] = np.lib.format.open_memmap(path, "w+", array.dtype, shape)
                if files[name].shape[1:] != array.shape:
                    raise CaseError(f"output {name!r} changes its shape with the data and cannot be judged")
                files[name][number] = array
    return Answers(outputs=tuple(files), batches=len(data), batch_size=data.batch_size)


@contextlib.contextmanager
def _model(request: AnswerRequest) -> Iterator[Answer]:
    if request.engine is None:
        yield _onnx(Path(request.onnx), faithful=request.faithful)
        return
    target = request.engine
    backend = get_backend(target.case.backend, target.device)
    with backend.load(Path(target.engine), target.case, target.axes) as runner:
        kinds = {tensor.name: tensor.dtype for tensor in runner.inputs}

        def run(batch: Arrays) -> Arrays:
            runner.bind({name: _as(kinds[name], batch[name]) for name in kinds})
            runner.infer()
            return runner.outputs()

        yield run


def _onnx(path: Path, *, faithful: bool) -> Answer:
    import onnxruntime

    from perfgate.model.precision.probe import faithful_session

    if faithful:
        session = faithful_session(path)
    else:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    kinds = {value.name: value.type.removeprefix("tensor(").rstrip(")") for value in session.get_inputs()}

    def run(batch: Arrays) -> Arrays:
        feeds = {name: _as(kind, batch[name]) for name, kind in kinds.items()}
        return dict(zip(names, session.run(None, feeds), strict=True))

    return run


def _as(kind: str, array: Any) -> Any:
    """The array in the type that the model takes: a graph may have its inputs in FP16."""
    import numpy as np

    wanted = np.dtype({"double": "float64", "float": "float32"}.get(kind, kind))
    return np.ascontiguousarray(array.astype(wanted, copy=False))


if __name__ == "__main__":
    serve(AnswerRequest, answer)
