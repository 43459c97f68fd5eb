"""Stacks side by side: the same model, precision, inputs and shape on the same device, or a reason why not.

What is compared is the latency of a request: on a GPU with the copies from and to the host, on a CPU the
call itself, each stack in its own mode, which is named. Pure: no files, no clocks, no devices.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from perfgate.records import (
    Case,
    CaseResult,
    Difference,
    Environment,
    Failed,
    Measured,
    MetricColumns,
    Mode,
    NotRun,
    Record,
    RunResult,
    Tf32,
    Unchanged,
    Verdict,
)
from perfgate.value.table import STACKS_SCHEMA, Line, NotCompared, Range, Row, Stack, StackTable

# What makes it the same device. A GPU's slice has the name of the whole, so its size is asked as well.
_GPU_FACTS = ("gpu", "mig", "sm_count")
_CPU_FACTS = ("cpu", "cpus")
_EAGER = {"torch": "eager", "torch-compile": "compile"}
Key = tuple[str, str, tuple[tuple[str, int], ...]]


class Entry(Record):
    """A measured case that can be compared: `columns` has one value a launch by metric."""

    stack: str
    result: CaseResult
    environment: Environment
    mode: Mode
    columns: MetricColumns
    stored: bool

    @property
    def latency(self) -> float:
        return statistics.median(self.columns["latency_ns"])

    @property
    def tf32(self) -> Tf32 | None:
        outcome = self.result.outcome
        return outcome.engine.tf32 if isinstance(outcome, Measured) and outcome.engine else None


def compare_stacks(results: Sequence[RunResult]) -> StackTable:
    """The first result is the original; each other is set beside it, case by case.

    Where the original has several request modes of a case, its fastest is the reference, so that no other
    stack is flattered; its other modes are lines of their own.
    """
    names = labels(results)
    rows: list[Row] = []
    refused: list[NotCompared] = []
    for key in dict.fromkeys(_key(case.case) for run in results for case in run.cases):
        row, reasons = _compare(key, names, results)
        rows += [row] if row else []
        refused += reasons
    stacks = (_stack(label, run, results[0]) for label, run in zip(names, results, strict=True))
    return StackTable(
        schema=STACKS_SCHEMA, stacks=tuple(stacks), rows=tuple(rows), not_compared=tuple(refused)
    )


def _compare(
    key: Key, names: Sequence[str], results: Sequence[RunResult]
) -> tuple[Row | None, list[NotCompared]]:
    """One model, precision and shape over all stacks."""
    refused: list[NotCompared] = []
    lines: list[Line] = []
    reference: Entry | None = None
    for number, (label, run) in enumerate(zip(names, results, strict=True)):
        found = [case for case in run.cases if _key(case.case) == key]
        if not found:
            refused.append(_not_compared(key, label, "", _absent(key, run)))
        entries: list[Entry] = []
        for result in found:
            entry = request_entry(label, result, run.environment)
            if isinstance(entry, Entry):
                entries.append(entry)
            else:
                refused.append(_not_compared(key, label, result.case.id, entry))
        entries.sort(key=lambda entry: entry.latency)
        if number == 0:
            reference = entries[0] if entries else None
        for entry in entries:
            reason = _mismatch(reference, entry, names[0])
            if reference is None or reason:
                refused.append(_not_compared(key, label, entry.result.case.id, reason))
            else:
                lines.append(_line(reference, entry))
    if reference is None or not any(line.stack != names[0] for line in lines):
        alone = "no other stack has a comparable case"
        refused += [_not_compared(key, line.stack, line.case_id, alone) for line in lines]
        return None, refused
    case = reference.result.case
    row = Row(
        model=case.model, precision=case.precision, shape=case.shape, items=case.items, lines=tuple(lines)
    )
    return row, refused


def request_entry(stack: str, result: CaseResult, environment: Environment) -> Entry | str:
    """The case with its numbers, or why it has none that stand for a request's latency."""
    outcome = result.outcome
    if isinstance(outcome, NotRun):
        return f"not run: {outcome.reason}"
    if isinstance(outcome, Failed):
        return f"failed at {outcome.stage}: {outcome.reason}"
    if result.recipe is None:
        return "it has no recipe, so nobody can say which model it ran"
    if isinstance(outcome, Measured) and outcome.engine and outcome.engine.unmet:
        return f"its precision was not realised: {outcome.engine.unmet}"
    if wrong := _wrong_answers(result):
        return wrong
    mode = (outcome.mode if isinstance(outcome, Measured) else None) or result.case.mode
    if reason := no_request(mode, environment):
        return reason
    columns = _columns(result)
    if not columns:
        return _no_numbers(outcome)
    return Entry(
        stack=stack,
        result=result,
        environment=environment,
        mode=mode,
        columns=columns,
        stored=isinstance(outcome, Unchanged),
    )


def _wrong_answers(result: CaseResult) -> str:
    """Why a case's answers are no right ones, or nothing: a fast wrong answer is worth nothing."""
    judged = result.judgement
    if result.accuracy is not None and result.accuracy.failures:
        return f"its answers failed their check: {'; '.join(result.accuracy.failures)}"
    return f"its verdict is ERROR: {judged.reason}" if judged and judged.verdict is Verdict.ERROR else ""


def no_request(mode: Mode, environment: Environment) -> str:
    """Why a mode's time is not the latency of a request, or nothing."""
    if mode.streams > 1:
        return f"{mode.streams} streams share the device in it, which is no request's latency"
    if "gpu" in environment.key and not mode.transfers:
        return (
            f"measured without transfers ({mode}): a request has to reach the device; "
            f"measure it in the mode '{mode.drive}+transfers'"
        )
    return ""


def _no_numbers(outcome: Measured | Unchanged) -> str:
    if isinstance(outcome, Unchanged):
        return "not timed, and without its baseline's numbers: measure it with --remeasure"
    reasons = sorted({launch.invalid for launch in outcome.launches})
    return f"no launch is valid: {'; '.join(reasons)}"


def _columns(result: CaseResult) -> MetricColumns:
    """One value a launch by metric, from the valid launches or from the baseline of an unchanged case."""
    outcome = result.outcome
    if isinstance(outcome, Measured):
        valid = [launch for launch in outcome.launches if not launch.invalid]
        return {} if not valid else {
            "latency_ns": tuple(launch.median_ns for launch in valid),
            "p99_ns": tuple(launch.percentile_ns(99) for launch in valid),
            "samples": tuple(len(launch.samples_ns) for launch in valid),
            "peak_memory_bytes": tuple(launch.peak_memory_bytes for launch in valid),
            "throughput_qps": tuple(len(launch.samples_ns) / launch.wall_ns * 1e9 for launch in valid),
        }  # fmt: skip
    judged = result.judgement
    if judged is None or judged.verdict is not Verdict.UNCHANGED:
        return {}
    needed = ("latency_ns", "p99_ns", "samples", "throughput_qps")
    whole = all(judged.base.get(name) for name in needed) and min(judged.base["latency_ns"]) > 0
    return judged.base if whole else {}


def _mismatch(original: Entry | None, entry: Entry, label: str) -> str:
    """Why two cases are not the same work on the same device, or nothing."""
    if original is None:
        return f"{label}, the original, has no comparable case"
    ours, theirs = entry.result, original.result
    assert ours.recipe is not None and theirs.recipe is not None
    if ours.recipe.onnx_digest != theirs.recipe.onnx_digest:
        return (
            f"another model: its ONNX graph is {ours.recipe.onnx_digest[:12]}, "
            f"that of {label} {theirs.recipe.onnx_digest[:12]}"
        )
    if ours.case.inputs != theirs.case.inputs:
        names = ours.case.inputs.keys() | theirs.case.inputs.keys()
        other = [n for n in sorted(names) if ours.case.inputs.get(n) != theirs.case.inputs.get(n)]
        return f"other input data than {label}: {', '.join(other)}"
    return other_device(original.environment, entry.environment, label)


def other_device(original: Environment, environment: Environment, label: str) -> str:
    base, head = original.key, environment.key
    if ("gpu" in base) != ("gpu" in head):
        return f"another device: {environment.device}, and {label} ran on {original.device}"
    facts = _GPU_FACTS if "gpu" in base else _CPU_FACTS
    # A reading that one side lacks (no NVML) is no difference; the name is always there.
    for name in (fact for fact in facts if fact in base and fact in head):
        if base[name] != head[name]:
            return f"another device: {name} is {head[name]}, with {label} {base[name]}"
    if not any(fact in base and fact in head for fact in facts) and original.device != environment.device:
        return f"another device: {environment.device}, and {label} ran on {original.device}"
    return ""


def _line(original: Entry, entry: Entry) -> Line:
    columns, base = entry.columns, original.columns["latency_ns"]
    values = columns["latency_ns"]
    latency = Range(value=statistics.median(values), low=min(values), high=max(values))
    qps = statistics.median(columns["throughput_qps"])
    memory = [value for value in columns.get("peak_memory_bytes", ()) if value]
    same = entry is original
    return Line(
        stack=entry.stack,
        case_id=entry.result.case.id,
        mode=entry.mode,
        launches=len(values),
        samples=int(min(columns["samples"])),
        latency_ns=latency,
        p99_ns=statistics.median(columns["p99_ns"]),
        throughput_qps=round(qps, 3),
        items_per_s=round(qps * entry.result.case.items, 3),
        memory_bytes=statistics.median(memory) if memory else None,
        speedup=Range(
            value=round(original.latency / latency.value, 4),
            low=1.0 if same else round(min(base) / latency.high, 4),
            high=1.0 if same else round(max(base) / latency.low, 4),
        ),
        stored=entry.stored,
        tf32=entry.tf32,
    )


def _key(case: Case) -> Key:
    return case.model, case.precision, tuple(sorted(case.shape.items()))


def _absent(key: Key, run: RunResult) -> str:
    """Why a stack has no case of a key: what it has nearest to it."""
    model, precision, _ = key
    cases = [case.case for case in run.cases if case.case.model == model]
    if not cases:
        return "it has no case of this model"
    fitting = [case.shape.items() for case in cases if case.precision == precision]
    shapes = {"-".join(f"{name}{value}" for name, value in shape) or "a fixed shape" for shape in fitting}
    if shapes:
        return f"not measured at this shape, only at {', '.join(sorted(shapes))}"
    return f"not measured in this precision, only in {', '.join(sorted({c.precision for c in cases}))}"


def _not_compared(key: Key, stack: str, case_id: str, reason: str) -> NotCompared:
    model, precision, shape = key
    fields = {"model": model, "precision": precision, "shape": dict(shape)}
    return NotCompared(**fields, stack=stack, case_id=case_id, reason=reason)  # type: ignore[arg-type]


def labels(results: Sequence[RunResult]) -> list[str]:
    """A name for each stack: backend and version; the run's id behind it where two would be alike."""
    plain = [_label(run) for run in results]
    named: list[str] = []
    for number, (label, run) in enumerate(zip(plain, results, strict=True), start=1):
        unique = label if plain.count(label) == 1 else f"{label} ({run.run_id})"
        named.append(f"{unique} #{number}" if unique in named else unique)
    return named


def _label(run: RunResult) -> str:
    for case in run.cases:
        if case.recipe is not None:
            backend = case.case.backend
            library = "torch" if backend in _EAGER else backend
            version = case.recipe.versions.get(library, "")
            return " ".join(part for part in (library, version, _EAGER.get(backend, "")) if part)[:200]
    return run.environment.toolchain


def _stack(label: str, run: RunResult, original: RunResult) -> Stack:
    versions = next((case.recipe.versions for case in run.cases if case.recipe is not None), {})
    base, head = original.environment.key, run.environment.key
    libraries = {name for one in (run, original) for case in one.cases if case.recipe is not None
                 for name in case.recipe.versions}  # fmt: skip
    return Stack(
        label=label,
        run_id=run.run_id,
        created=run.created,
        device=run.environment.key.get("gpu", run.environment.device),
        versions=versions,
        differences=tuple(
            Difference(field=name, base=base.get(name, "absent"), head=head.get(name, "absent"))
            for name in sorted((base.keys() | head.keys()) - libraries)
            if base.get(name) != head.get(name)
        ),
    )
