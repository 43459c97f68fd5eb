"""What the benchmark scripts share: the command line, planning a case, its engine, a JSON file, a table.

A script is a function of its options, and ends in `sys.exit(common.main(run, __doc__, [option(…), …]))`.

Everything is planned, built and loaded by perfgate's own code, from a plain checkout too.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import msgspec

from perfgate.engine import get_backend
from perfgate.engine.cache import EngineCache
from perfgate.engine.interface import BuildRequest
from perfgate.errors import CaseError, InfrastructureError, PerfgateError, UsageError
from perfgate.gate.baselines import Baselines
from perfgate.measure.environment import fingerprint
from perfgate.measure.launch import EngineTarget
from perfgate.measure.lock import device_lock, lock_name
from perfgate.model.cases import expand
from perfgate.model.read import read_spec
from perfgate.records import Case, Dimension, EngineFacts, Failed, NotRun, Record, digest
from perfgate.run.prepare import Preparation
from perfgate.settings import Settings
from perfgate.util.files import file_digest, record_json, write_text
from perfgate.util.interpreter import Interpreter
from perfgate.util.process import package_environment

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD_TIMEOUT_S = 1200


Options = argparse.Namespace
# An option of a script: what `argparse.ArgumentParser.add_argument` is given.
Option = tuple[str, Mapping[str, Any]]


def option(name: str, **how: Any) -> Option:
    """One option, such as `option("--seed", type=int, default=1)`."""
    return name, how


def out_option(file: str) -> Option:
    """Where the JSON file goes."""
    return option("--out", type=Path, default=Path(file), help="JSON file (default: %(default)s)")


def device_options(file: str) -> list[Option]:
    """The options of every script that measures on a device."""
    return [
        option("--backend", default="tensorrt", help="tensorrt, onnxruntime (default: %(default)s)"),
        option("--device", default="auto", help="auto, or a GPU's index or UUID"),
        out_option(file),
    ]


def main(run: Callable[[Options], int], doc: str | None, options: Sequence[Option]) -> int:
    """Run a script with the options of its command line; returns the exit code.

    An error of perfgate's is a short message and its own exit code.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)
    for name, how in options:
        parser.add_argument(name, **how)
    chosen = parser.parse_args()
    try:
        return run(chosen)
    except PerfgateError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        if isinstance(error, CaseError) and error.stderr_tail:
            print(error.stderr_tail, file=sys.stderr)
        return error.exit_code


def table_of(
    kind: str, measure: Callable[[Options], Mapping[str, Any]], show: Callable[[Any], str]
) -> Callable[[Options], int]:
    """The run of a script that measures, writes a JSON file of this kind and prints a table."""

    def run(options: Options) -> int:
        found = measure(options)
        write(options.out, kind, found)
        print(show(found))
        return 0

    return run


class Plan(Record):
    """One case with the request for its engine and the folder of its input files."""

    case: Case
    request: BuildRequest
    folder: str


def say(text: str) -> None:
    """Progress goes to standard error, so that standard output holds the table alone."""
    print(text, file=sys.stderr, flush=True)


def parse_shape(text: str) -> dict[str, int]:
    """`b=8,s=128` as a dictionary."""
    try:
        pairs = [part.split("=") for part in text.split(",") if part]
        return {name.strip(): int(value) for name, value in pairs}
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not like b=8,s=128") from error


def plan(model: Path, precision: str, shape: Mapping[str, int], backend: str, device: str) -> Plan:
    """Plan a case of a spec at any shape. Its ONNX file is made in `.perfgate/models` once.

    Raises `PerfgateError` where the backend, the model or the shape is not to be had here.
    """
    settings = Settings(root=str(ROOT), backend=backend, device=device, all_cases=True)
    chosen = get_backend(backend, device)
    if reason := chosen.unavailable():
        raise InfrastructureError(reason, where=f"backend {chosen.name}", fix="perfgate doctor")
    spec = read_spec(model)
    cases = expand(
        spec,
        backend=chosen.name,
        default_mode=chosen.modes()[0],
        tolerance=settings.tolerance(chosen.kind),
    )
    case = next((one for one in cases if one.precision == precision), None)
    if case is None or not shape.keys() <= case.shape.keys():
        raise UsageError(f"has no case in {precision} with {dict(shape)}", where=model)
    sizes = {**case.shape, **shape}
    label = "-".join(f"{name}{size}" for name, size in sizes.items())
    case = msgspec.structs.replace(case, id=f"{spec.name}/{precision}/{label}", shape=sizes)
    preparation = Preparation(settings, chosen, fingerprint(chosen, device), Baselines(root=""), say)
    ((result, pending),) = preparation.all_cases([(spec, case)])
    if pending is None:
        outcome = result.outcome
        raise CaseError(outcome.reason if isinstance(outcome, NotRun | Failed) else "nothing to build")
    return Plan(case=case, request=pending.request, folder=pending.folder)


def with_profile(planned: Plan, profile: Mapping[str, Dimension]) -> Plan:
    """The same plan, built for another optimisation profile."""
    recipe = msgspec.structs.replace(planned.request.recipe, profile=dict(profile))
    return msgspec.structs.replace(planned, request=msgspec.structs.replace(planned.request, recipe=recipe))


def static_profile(shape: Mapping[str, int]) -> dict[str, Dimension]:
    """A profile that leaves the builder one shape only."""
    return {name: Dimension(min=size, opt=size, max=size) for name, size in shape.items()}


def build(planned: Plan, folder: Path, *, timing: Path | None = None) -> tuple[Path, EngineFacts]:
    """Build in a fresh process, into a cache of its own: a folder that is new gives a build that is new.

    The timing cache that the build leaves is `timing` beside the engine, where the backend has one.
    """
    request = planned.request
    if timing is not None:
        recipe = msgspec.structs.replace(request.recipe, timing_cache_digest=file_digest(timing))
        request = msgspec.structs.replace(request, recipe=recipe, timing_cache=str(timing.resolve()))
    return EngineCache(folder, say=say).get(request, timeout_s=BUILD_TIMEOUT_S)


def target(planned: Plan, engine: Path, device: str) -> EngineTarget:
    """What a launch of a planned case's engine is asked for."""
    return EngineTarget(engine=str(engine.resolve()), case=planned.case, folder=planned.folder, device=device)


def child() -> Interpreter:
    """For `perfgate.util.process.call_child`: the scripts' own folder is importable in the child too."""
    path = package_environment()["PYTHONPATH"]
    return Interpreter(variables={"PYTHONPATH": f"{HERE}:{path}"})


@contextlib.contextmanager
def locked(backend: str, device: str) -> Iterator[None]:
    """The device's own lock, as a run of perfgate takes it."""
    name = lock_name(get_backend(backend, device).kind, device)
    with device_lock(name, timeout_s=3600, say=say):
        yield


@contextlib.contextmanager
def store(given: Path | None) -> Iterator[Path]:
    """The folder for engines: the one that was given, else a temporary one."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="perfgate-benchmark-") as name:
        yield Path(name)


def about(backend: str, device: str) -> dict[str, Any]:
    """When and on what: date, machine (a digest of its boot), GPU (or CPU), driver and versions."""
    environment = fingerprint(get_backend(backend, device), device)
    boot = Path("/proc/sys/kernel/random/boot_id")
    return {
        "date": f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}",
        "machine": digest(boot.read_text().strip())[:12] if boot.is_file() else "",
        "device": environment.device,
        "toolchain": environment.toolchain,
        "environment": {**environment.noted, **environment.key},
    }


def write(out: Path, kind: str, body: Mapping[str, Any]) -> None:
    """Write the JSON file atomically, the schema first."""
    write_text(out, record_json({"schema": f"perfgate-trt/benchmark-{kind}/v1", **body}))
    say(f"wrote {out}")


def text_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns of text: the first one to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = []
    for row in cells:
        first, *others = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        padded = [cell.strip().rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first, *padded]).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def percent(share: float | None, digits: int = 2) -> str:
    """`1.25 %`; a dash for what is not known."""
    return "-" if share is None else f"{share * 100:.{digits}f} %"


def at_most(share: float, digits: int) -> str:
    """An upper bound in per cent, rounded up: 0.00749 % is at most 0.008 %."""
    scale = 10 ** (digits + 2)
    return percent(math.ceil(round(share * scale, 6)) / scale, digits)


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean; 0 of nothing."""
    return statistics.fmean(values) if values else 0.0


def launch_cv(medians: Mapping[str, Sequence[float]]) -> float | None:
    """The coefficient of variation of launches, pooled over cases or engines: the root of the mean variance
    of log medians, weighed by degrees of freedom. None where none has two launches."""
    squares, dof = 0.0, 0
    for side in medians.values():
        logs = [math.log(median) for median in side]
        squares += math.fsum((value - statistics.fmean(logs)) ** 2 for value in logs)
        dof += max(0, len(logs) - 1)
    return math.sqrt(squares / dof) if dof else None
