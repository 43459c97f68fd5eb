"""What must hold of a spec beyond the types of its values; every mistake is found, not the first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from perfgate.errors import SpecError
from perfgate.model.spec import JUDGED_METRICS, DimensionSpec, ModelSpec, Source, parse_mode
from perfgate.records import InputData

_DATA = (".npz", ".py", "")  # "" is a folder
_TWICE = "names a value twice"


def mistakes_of(path: Path, spec: ModelSpec) -> Iterator[SpecError]:
    """The mistakes of one spec that was read from `path`, without looking into its ONNX graph."""
    if spec.name != path.stem:
        fix = f'name = "{path.stem}"'
        yield SpecError(f"the name {spec.name!r} is not the file's", where=f"{path}: name", fix=fix)
    yield from _of_source(path, spec.source)
    for key, values in (("precisions", spec.precisions), ("modes", spec.modes)):
        if len(set(values)) != len(values):
            yield SpecError(_TWICE, where=f"{path}: {key}", fix="remove the repeated value")
    for name, dim in spec.dims.items():
        yield from _of_dimension(f"{path}: dims.{name}", dim)
    for name, data in spec.inputs.items():
        yield from _of_input(path, name, data)
    for mode in spec.modes:
        try:
            parse_mode(mode, where=f"{path}: modes")
        except SpecError as error:
            yield error
    if spec.ignore and spec.catch and spec.ignore >= spec.catch:
        yield SpecError(
            f"ignore ({spec.ignore:g}) is not below catch ({spec.catch:g})",
            where=f"{path}: ignore",
            fix="a slowdown to ignore must be smaller than one to catch, such as 0.005 and 0.02",
        )
    yield from _of_promises(path, spec)
    for plugin in spec.plugins:
        if not _is_file(path.parent / plugin):
            yield SpecError(f"no such file: {plugin}", where=f"{path}: plugins", fix="put it beside the spec")
    yield from _of_precision(path, spec)


def _of_precision(path: Path, spec: ModelSpec) -> Iterator[SpecError]:
    """Every file that the precision tables name lies beside the spec, and is of a kind that we read."""
    for precision, graph in spec.precision.graphs.items():
        yield from _outside(path, graph, f"precision.graphs.{precision}")
    for key, name, kinds in (
        ("calibration.data", spec.calibration.data, _DATA),
        ("accuracy.data", spec.accuracy.data, _DATA),
        ("accuracy.metric", spec.accuracy.metric, (".py",)),
    ):
        if not name:
            continue
        if Path(name).suffix in kinds:
            yield from _outside(path, name, key, folder="" in kinds)
        else:
            yield SpecError(
                f"{name} is of no kind that is read here",
                where=f"{path}: {key}",
                fix="a .py" if kinds == (".py",) else "a .npz, a folder of .npy files, or a .py",
            )


def _of_promises(path: Path, spec: ModelSpec) -> Iterator[SpecError]:
    if (spec.slo.service_p99_ms is None) is not (spec.slo.service_qps is None):
        yield SpecError(
            "service_p99_ms and service_qps go together",
            where=f"{path}: slo",
            fix="a tail with queueing is a promise at a load: set both; engine_p99_ms is one query at a time",
        )
    for where, floors in (("floors", spec.floors), *((f"rule {r.cases}", r.floors) for r in spec.rule)):
        for unknown in sorted(floors.keys() - JUDGED_METRICS):
            yield SpecError(
                f"no metric {unknown!r} has a floor",
                where=f"{path}: {where}",
                fix=f"one of: {', '.join(sorted(JUDGED_METRICS))}",
            )


def _of_source(path: Path, source: Source) -> Iterator[SpecError]:
    if bool(source.script) == bool(source.onnx):
        yield SpecError(
            "needs exactly one of script and onnx",
            where=f"{path}: source",
            fix='script = "model.py" writes the file, or onnx = "model.onnx" names it',
        )
        return
    key, name = ("script", source.script) if source.script else ("onnx", source.onnx)
    yield from _outside(path, name, f"source.{key}")


def _outside(path: Path, name: str, key: str, *, folder: bool = False) -> Iterator[SpecError]:
    """Why `name` is no file (or folder, where that will do) in the spec's folder."""
    inside = path.parent.resolve()
    target, where = path.parent / name, f"{path}: {key}"
    if Path(name).is_absolute() or not _resolved(target).is_relative_to(inside):
        yield SpecError(f"{name} is outside {inside}", where=where, fix="keep it beside the spec")
    elif not _is_file(target) and not (folder and _is_folder(target)):
        yield SpecError(f"no such file: {name}", where=where, fix=f"put it in {path.parent} or correct it")


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError):  # a loop of links, or no possible name: then it is no file
        return path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or one that no file can have
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _of_dimension(where: str, dim: DimensionSpec) -> Iterator[SpecError]:
    if not dim.min <= dim.opt <= dim.max:
        yield SpecError(
            f"min {dim.min}, opt {dim.opt}, max {dim.max} are not in order",
            where=where,
            fix="min <= opt <= max must hold",
        )
    elif outside := [value for value in dim.measure if not dim.min <= value <= dim.max]:
        yield SpecError(
            f"measures {outside[0]}, outside the profile {dim.min} to {dim.max}",
            where=f"{where}.measure",
            fix="widen min and max, or measure inside them",
        )
    if len(set(dim.measure)) != len(dim.measure):
        yield SpecError(_TWICE, where=f"{where}.measure", fix="remove the repeated value")


def _of_input(path: Path, name: str, data: InputData) -> Iterator[SpecError]:
    where = f"{path}: inputs.{name}"
    if data.file_digest:
        yield SpecError("unknown key", where=f"{where}.file_digest", fix="remove it; perfgate computes it")
    if (data.generate == "file") != bool(data.file):
        yield SpecError(
            'generate = "file" and file = "…" go together',
            where=where,
            fix='file = "inputs.npy", beside the spec',
        )
    if data.file and not _is_file(path.parent / data.file):
        yield SpecError(f"no such file: {data.file}", where=f"{where}.file", fix=f"put it in {path.parent}")
    if data.generate in ("integers", "uniform") and data.low >= data.high:
        yield SpecError(
            f"low {data.low:g} is not below high {data.high:g}",
            where=where,
            fix="values are drawn from [low, high)",
        )
    elif data.generate == "integers" and not -(2**63) <= int(data.low) < int(data.high) <= 2**63:
        yield SpecError(
            f"no whole number lies from {data.low:g} to {data.high:g}, or not in 64 bits",
            where=where,
            fix="low and high are whole numbers of at most 64 bits",
        )
