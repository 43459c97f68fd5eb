"""Results files as services: one stack's model in one precision, with the batch sizes that were measured.

What can stand for a request's time is decided in `perfgate.value.stacks`; here it is gathered by batch size.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perfgate.records import Environment, Measured, Mode, RunResult, Tf32
from perfgate.value.queueing import Service
from perfgate.value.stacks import Entry, labels, other_device, request_entry

# On the way to a service, in its order. Of the two builds the first deployment needs the cold one.
STAGES = (
    "environment",
    "export",
    "conversion",
    "calibration",
    "build",
    "build with timing cache",
    "reference",
    "verification",
    "load",
    "first inference",
)
_RECORDED = ("export", "conversion", "calibration", "reference", "verification")
_BATCH = ("b", "batch")


@dataclass(frozen=True)
class Served:
    """A service: what was measured of it, smallest batch first. Seconds, bytes, items a second."""

    stack: str
    model: str
    precision: str
    other: tuple[tuple[str, int], ...]
    mode: Mode
    environment: Environment
    entries: tuple[Entry, ...]
    probe_s: float = 0.0

    @property
    def identity(self) -> tuple[object, ...]:
        """What tells it from every other service."""
        return self.stack, self.model, self.precision, self.other

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(entry.result.case.items for entry in self.entries)

    @property
    def stored(self) -> bool:
        """Whether some numbers are a baseline's medians, which hold no samples to replay."""
        return any(entry.stored for entry in self.entries)

    @property
    def best(self) -> Entry:
        """The batch size with the most items a second."""
        return max(self.entries, key=items_per_s)

    @property
    def average_s(self) -> float:
        """The mean of the smallest batch's samples, a launch's mean each; of stored numbers the median."""
        return statistics.fmean(float(np.mean(launch)) for launch in _samples(self.entries[0]))

    @property
    def p99_s(self) -> float:
        return statistics.median(self.entries[0].columns["p99_ns"]) / 1e9

    @property
    def tf32(self) -> Tf32 | None:
        """Which FP32 products may round to TF32; None where that is unknown or not the same in all sizes."""
        found = {entry.tf32 for entry in self.entries}
        return found.pop() if len(found) == 1 else None

    @property
    def memory_bytes(self) -> float | None:
        """At the batch size with the most items a second."""
        known = [value for value in self.best.columns.get("peak_memory_bytes", ()) if value]
        return statistics.median(known) if known else None

    @property
    def limit_ms(self) -> float | None:
        """The strictest promise of its cases on the P99 of a request."""
        promised = [entry.result.case.slo.service_p99_ms for entry in self.entries]
        return min((value for value in promised if value is not None), default=None)

    @property
    def requested_per_s(self) -> float | None:
        """The greatest load that its cases' promises name."""
        asked = [entry.result.case.slo.service_qps for entry in self.entries]
        return max((value for value in asked if value is not None), default=None)

    def service(self) -> Service:
        """What the simulation replays."""
        times = zip(self.sizes, map(_samples, self.entries), strict=True)
        return Service(dict(times), padded=self.mode.drive == "graph")

    def stages(self) -> dict[str, float | None]:
        """The stages on the way to a running service in seconds, each the median over what perfgate timed of
        it; None for one whose product came from a cache that did not keep them."""
        seconds: dict[str, list[float]] = defaultdict(list)
        unknown: set[str] = set()
        if self.probe_s:
            seconds["environment"].append(self.probe_s)
        for entry in self.entries:
            outcome, recipe = entry.result.outcome, entry.result.recipe
            if not isinstance(outcome, Measured):
                continue
            if (stages := entry.result.stages) is not None:
                unknown.update(stages.unknown)
                for name in _RECORDED:
                    if (took_ns := getattr(stages, f"{name}_ns")) is not None:
                        seconds[name].append(took_ns / 1e9)
            if outcome.engine is not None and outcome.engine.build_ns:
                warm = recipe is not None and recipe.timing_cache_digest
                seconds["build with timing cache" if warm else "build"].append(outcome.engine.build_ns / 1e9)
            for launch in outcome.launches:
                if not launch.invalid:
                    seconds["load"].append(launch.load_ns / 1e9)
                    seconds["first inference"].append(launch.first_inference_ns / 1e9)
        return {
            name: statistics.median(seconds[name]) if name in seconds else None
            for name in STAGES
            if name in seconds or name in unknown
        }

    def deploy_s(self) -> float | None:
        """All stages together, the cold build where one was timed; None where none was."""
        known = {name: seconds for name, seconds in self.stages().items() if seconds is not None}
        if "build" in known:
            known.pop("build with timing cache", None)
        return sum(known.values()) if known else None


@dataclass(frozen=True)
class Pair:
    """The same model on both stacks."""

    original: Served
    tensorrt: Served


def items_per_s(entry: Entry) -> float:
    """Measured throughput in items."""
    return statistics.median(entry.columns["throughput_qps"]) * entry.result.case.items


def services(results: Sequence[RunResult]) -> list[list[Served]]:
    """The services of every file, in the file's order."""
    return [_services(label, run) for label, run in zip(labels(results), results, strict=True)]


def _services(label: str, run: RunResult) -> list[Served]:
    groups: dict[tuple[str, str, tuple[tuple[str, int], ...]], dict[str, list[Entry]]] = {}
    for result in run.cases:
        entry = request_entry(label, result, run.environment)
        if isinstance(entry, Entry):
            case = result.case
            other = tuple(sorted((k, v) for k, v in case.shape.items() if k not in _BATCH))
            modes = groups.setdefault((case.model, case.precision, other), defaultdict(list))
            modes[str(entry.mode)].append(entry)
    found = []
    for (model, precision, other), by_mode in groups.items():
        # The mode with the most batch sizes, and of those the fastest, so that no stack is flattered.
        entries = min(by_mode.values(), key=lambda one: (-len(one), sum(entry.latency for entry in one)))
        ordered = tuple(sorted(entries, key=lambda entry: entry.result.case.items))
        mode, probe_s = ordered[0].mode, run.probe_ns / 1e9
        found.append(Served(label, model, precision, other, mode, run.environment, ordered, probe_s))
    return found


def pairs(results: Sequence[RunResult], wanted: str = "") -> list[Pair]:
    """Every model of the other stacks beside the first file's: like precision with like first, the fastest of
    a model before its others.

    `wanted` is a model, or model/precision. The original is taken in the same precision, else in the one that
    it runs: fp32 before all others. Both sides keep the batch sizes that both were measured at.
    """
    first, *others = services(results) or [[]]
    found = []
    for served in (one for stack in others for one in stack):
        if wanted and wanted not in (served.model, f"{served.model}/{served.precision}"):
            continue
        fit = [one for one in first if _same_work(one, served) and set(one.sizes) & set(served.sizes)]
        fit.sort(key=lambda one: (one.precision != served.precision, one.precision != "fp32"))
        if fit:
            common = set(fit[0].sizes) & set(served.sizes)
            found.append(Pair(_at(fit[0], common), _at(served, common)))
    order = list(dict.fromkeys(pair.tensorrt.model for pair in found))
    found.sort(
        key=lambda pair: (
            order.index(pair.tensorrt.model),
            pair.original.precision != pair.tensorrt.precision,
            -items_per_s(pair.tensorrt.best),
        )
    )
    return found


def _at(served: Served, sizes: set[int]) -> Served:
    """The service at some of its batch sizes: what is smallest or best is the same work on both sides."""
    entries = tuple(one for one in served.entries if one.result.case.items in sizes)
    return dataclasses.replace(served, entries=entries)


def _same_work(original: Served, served: Served) -> bool:
    if (original.model, original.other) != (served.model, served.other):
        return False
    if other_device(original.environment, served.environment, original.stack):
        return False
    one, two = original.entries[0].result, served.entries[0].result
    if one.case.inputs != two.case.inputs or one.recipe is None or two.recipe is None:
        return False
    # Another precision is another ONNX file where it lives in the graph: then the source must be the same.
    same_source = bool(one.source_digest) and one.source_digest == two.source_digest
    return one.recipe.onnx_digest == two.recipe.onnx_digest or (
        original.precision != served.precision and same_source
    )


def _samples(entry: Entry) -> list[np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Seconds, an array a launch."""
    outcome: object = entry.result.outcome
    if isinstance(outcome, Measured):
        valid = [launch for launch in outcome.launches if not launch.invalid]
        return [np.asarray(launch.samples_ns, dtype=np.float64) / 1e9 for launch in valid]
    return [np.asarray([value], dtype=np.float64) / 1e9 for value in entry.columns["latency_ns"]]
