"""Are the answers right: an engine's outputs against ONNX Runtime's, on the CPU, in FP32, on the same inputs.

`check` is the controller's side. Each of its steps is a child process: the reference (kept by digest), the
engine, and the task metric, which is the user's code and runs with a scrubbed environment.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from pathlib import Path

import msgspec

from perfgate.errors import CaseError, DataError
from perfgate.measure.accuracy.answer_child import AnswerRequest, Answers
from perfgate.measure.accuracy.error_metrics import compare_output
from perfgate.measure.accuracy.nonfinite import WhereRequest, where_nonfinite
from perfgate.measure.launch import EngineTarget
from perfgate.model.manifest import ScriptCall
from perfgate.model.observed import ScriptRun, run_script, still_holds
from perfgate.model.precision.data import DataRequest
from perfgate.records import Accuracy, Count, Manifest, OutputAccuracy, Record, TaskMetric, Text, digest
from perfgate.util.files import read_record, record_json, store_lock, write_text
from perfgate.util.process import call_child

_REFERENCE = "ONNX Runtime {version}, CPU, FP32"
_FACTS_LIMIT_BYTES = 1 << 20
_METRIC_TIMEOUT_S = 600


class CheckRequest(Record, kw_only=True):
    """One case to check. `onnx` is the FP32 graph and `emitted` the case's own; `data_identity` names the
    files behind `data`. `faithful` answers from the emitted graph, rounded to FP16, in place of the engine.
    `metric` is a call of the user's script, `runtime` the version of ONNX Runtime."""

    target: EngineTarget
    onnx: Text
    onnx_digest: Text
    emitted: Text
    data: DataRequest
    data_identity: dict[str, str] = {}
    metric: ScriptCall | None = None
    faithful: bool = False
    runtime: Text
    timeout_s: int = 600
    notes: tuple[Text, ...] = ()


class Checked(Record):
    """A case's accuracy, without a judgement, and what finding it out took: `reference_ns` when the reference
    answered (0: that was not kept; `reference_cached`: not now), `verification_ns` for all the rest."""

    accuracy: Accuracy
    reference_ns: Count
    reference_cached: bool
    verification_ns: Count


class _Score(Record):
    """The user's metric of the reference's answers, kept beside them, and how long that took."""

    score: float
    took_ns: Count
    manifest: Manifest | None = None


def check(request: CheckRequest, store: Path) -> Checked:
    """The case held against the reference. Raises `CaseError` where it cannot be found out."""
    folder, cached = _reference(request, store)
    known = read_record(folder / "answers.json", Answers, limit_bytes=_FACTS_LIMIT_BYTES)
    metric = _Metric(request.metric, request.data, known, store.parent) if request.metric else None
    score = metric.of_reference(folder) if metric else None
    started = time.perf_counter_ns()
    accuracy = _compare_engine(request, folder, known, metric, score)
    return Checked(
        accuracy=accuracy,
        reference_ns=known.took_ns and known.took_ns + (score.took_ns if score else 0),
        reference_cached=cached,
        verification_ns=time.perf_counter_ns() - started,
    )


def _compare_engine(
    request: CheckRequest, folder: Path, known: Answers, metric: _Metric | None, score: _Score | None
) -> Accuracy:
    """The engine's answers against the reference's in `folder`."""
    with tempfile.TemporaryDirectory(prefix="head-", dir=folder.parent) as name:
        out = Path(name)
        asked = AnswerRequest(
            data=request.data,
            out=str(out),
            engine=None if request.faithful else request.target,
            onnx=request.emitted if request.faithful else "",
            faithful=request.faithful,
        )
        head = _call(asked, request.timeout_s)
        outputs = _compared(known, folder, head, out)
        if any(output.nonfinite for output in outputs):
            outputs = _located(request, outputs)
            task = None
        else:
            task = metric.compare(out, score.score) if metric and score else None
    return Accuracy(
        reference=_REFERENCE.format(version=request.runtime),
        samples=known.batches * known.batch_size,
        outputs=outputs,
        task=task,
        notes=request.notes,
    )


def _reference(request: CheckRequest, store: Path) -> tuple[Path, bool]:
    """The folder with the reference's outputs, answered once for a model, its data and its shape; and whether
    they were there."""
    key = digest([request.onnx_digest, digest(request.data), digest(request.data_identity), request.runtime])
    folder = store / key[:32]
    with store_lock(folder):
        facts = folder / "answers.json"
        if not (cached := _whole(facts, folder)):
            asked = AnswerRequest(data=request.data, out=str(folder), onnx=request.onnx)
            started = time.perf_counter_ns()
            known = _call(asked, request.timeout_s)
            took_ns = time.perf_counter_ns() - started
            write_text(facts, record_json(msgspec.structs.replace(known, took_ns=took_ns)))
    return folder, cached


def _whole(facts: Path, folder: Path) -> bool:
    try:
        known = read_record(facts, Answers, limit_bytes=_FACTS_LIMIT_BYTES)
    except DataError:
        return False
    return all((folder / f"{number}.npy").is_file() for number in range(len(known.outputs)))


def _call(request: AnswerRequest, timeout_s: int) -> Answers:
    return call_child("perfgate.measure.accuracy.answer_child", request, Answers, timeout_s=timeout_s)


def _compared(known: Answers, folder: Path, head: Answers, out: Path) -> tuple[OutputAccuracy, ...]:
    import numpy as np

    missing = sorted(set(known.outputs) - set(head.outputs))
    if missing:
        raise CaseError(f"the engine has no output {missing[0]!r}; it has {', '.join(head.outputs)}")
    found = []
    for number, name in enumerate(known.outputs):
        reference = np.load(folder / f"{number}.npy", mmap_mode="r")
        answers = np.load(out / f"{head.outputs.index(name)}.npy", mmap_mode="r")
        try:
            found.append(compare_output(name, zip(reference, answers, strict=True)))
        except ValueError as error:
            raise CaseError(f"the answers cannot be compared: {error}") from error
    return tuple(found)


def _located(request: CheckRequest, outputs: tuple[OutputAccuracy, ...]) -> tuple[OutputAccuracy, ...]:
    """The same with the first layer at which NaN or infinity appear."""
    asked = WhereRequest(emitted=request.emitted, onnx=request.onnx, data=request.data)
    where = where_nonfinite(asked, timeout_s=request.timeout_s)
    return tuple(
        msgspec.structs.replace(output, first_nonfinite=where) if output.nonfinite else output
        for output in outputs
    )


class _Metric:
    """The user's `score` of a model's outputs on one data set."""

    def __init__(self, call: ScriptCall, data: DataRequest, known: Answers, store: Path) -> None:
        self._call, self._data, self._known, self._store = call, data, known, store
        self._name = Path(call.script).name

    def compare(self, answers: Path, reference: float) -> TaskMetric:
        """The engine's score beside the reference's."""
        score, _ = self._score(answers)
        return TaskMetric(
            name=Path(self._call.script).stem,
            reference=reference,
            head=score,
            samples=self._known.batches * self._known.batch_size,
        )

    def of_reference(self, folder: Path) -> _Score:
        """The score of the reference's outputs, kept beside them while nothing that the script read
        changes."""
        cached = folder / f"task-{self._call.key[:16]}.json"
        with contextlib.suppress(DataError, OSError):
            kept = read_record(cached, _Score, limit_bytes=_FACTS_LIMIT_BYTES)
            if kept.manifest and still_holds(self._call, [kept.manifest], self._store):
                return kept
        started = time.perf_counter_ns()
        score, manifest = self._score(folder)
        made = _Score(score=score, took_ns=time.perf_counter_ns() - started, manifest=manifest)
        write_text(cached, record_json(made))
        return made

    def _score(self, answers: Path) -> tuple[float, Manifest]:
        """Raises `CaseError` for a script that fails or returns no number."""
        run = ScriptRun(
            module="perfgate.measure.accuracy.metric_child",
            request={
                "data": record_json(self._data),
                "answers": str(answers.resolve()),
                "outputs": list(self._known.outputs),
            },
            result="score",
            timeout_s=_METRIC_TIMEOUT_S,
            what=f"the metric {self._name}",
            fix="score(inputs, outputs) must return a number",
        )
        with tempfile.TemporaryDirectory(prefix="perfgate-metric-") as name:
            room = Path(name).resolve()
            manifest = run_script(self._call, run, room, self._store, lambda _: "score")
            try:
                score = float((room / run.result).read_text()[:100])
            except (OSError, ValueError) as error:
                raise CaseError(f"{run.what} returned no number") from error
        if not math.isfinite(score):
            raise CaseError(f"{run.what} returned {score}")
        return score, manifest
