"""Reading `models/<name>.toml`: one file a model, every mistake one line with file, key and remedy."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from perfgate.errors import SpecError
from perfgate.files import TEXT_LIMIT_BYTES, read_bytes, toml_fix
from perfgate.records import Draws, Floor, InputData, Mode, Name, Positive, Precision, Record, Slo, Text
from perfgate.spec.mistakes import explained
from perfgate.spec.policy import AccuracyPolicy, Calibration, PrecisionPolicy

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MODEL_SCHEMA = "perfgate-trt/model/v1"
# The metrics beside latency that a gate judges; a test holds this against `perfgate.gate.metrics`.
JUDGED_METRICS = {
    "throughput_qps",
    "p99_ns",
    "peak_memory_bytes",
    "engine_bytes",
    "device_memory_bytes",
    "build_ns",
}
Rate = Annotated[float, Meta(gt=0, lt=10)]


class Source(Record):
    """Where the ONNX file comes from: `onnx` is a path, `script` a Python file with `write_onnx`. `requires`
    is a distribution (`name==version`) without which the model's cases are listed as not run."""

    script: Text = ""
    onnx: Text = ""
    seed: Annotated[int, Meta(ge=0)] = 0
    args: dict[Name, int | float | str | bool] = {}
    timeout_s: Positive = 600
    limit_mib: Positive = 2048
    requires: Annotated[str, Meta(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.+!-]+)?$")] = ""


class DimensionSpec(Record):
    """A named dynamic dimension: the engine's profile, and the values that are measured."""

    min: Positive
    opt: Positive
    max: Positive
    measure: Annotated[tuple[Positive, ...], Meta(min_length=1, max_length=100)]


class SkipRule(Record, kw_only=True):
    """Cases listed as not run, with the reason. `cases` is a shell pattern on `precision/shape`."""

    backend: Name = "*"
    device: Name = "*"
    cases: Name = "*"
    reason: Name


class CaseRule(Record, kw_only=True):
    """Settings of some cases of the model; `cases` is a shell pattern on `precision/shape`. Of several rules
    that fit a case the most specific wins, setting by setting: the one with the most letters that are no
    wildcard."""

    cases: Name
    ignore: Rate | None = None
    catch: Rate | None = None
    floors: dict[Name, Floor] = {}


class ModelSpec(Record, kw_only=True):
    """One model as its TOML file describes it; `path` is where it was read from."""

    schema: Literal["perfgate-trt/model/v1"]
    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
    description: Text = ""
    precisions: Annotated[tuple[Precision, ...], Meta(min_length=1, max_length=4)]
    source: Source
    dims: dict[Name, DimensionSpec] = {}
    inputs: dict[Name, InputData] = {}
    plugins: tuple[Text, ...] = ()
    modes: tuple[Name, ...] = ()
    options: dict[Name, str | int | float | bool] = {}
    ignore: Rate | None = None
    catch: Rate | None = None
    floors: dict[Name, Floor] = {}
    rule: tuple[CaseRule, ...] = ()
    slo: Slo = Slo()
    builds: Annotated[int, Meta(ge=1, le=20)] = Draws().builds
    pick: Literal["best", "any"] = Draws().pick
    precision: PrecisionPolicy = PrecisionPolicy()
    calibration: Calibration = Calibration()
    accuracy: AccuracyPolicy = AccuracyPolicy()
    skip: tuple[SkipRule, ...] = ()
    path: str = ""

    @property
    def folder(self) -> Path:
        return Path(self.path).parent


def find_specs(paths: list[Path]) -> list[Path]:
    """The spec files under `paths` (files or folders), sorted. A missing path raises `SpecError`."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(path.glob("*.toml"))
        elif path.is_file():
            found.append(path)
        else:
            raise SpecError("no such file or folder", where=path, fix="name a folder of models/*.toml files")
    return list(dict.fromkeys(found))


def read_specs(paths: list[Path]) -> list[ModelSpec]:
    """Read all specs under `paths`; two models of one name raise `SpecError`."""
    specs: dict[str, ModelSpec] = {}
    for path in find_specs(paths):
        spec = read_spec(path)
        if spec.name in specs:
            raise SpecError(
                f"two models are named {spec.name!r}: the other is {specs[spec.name].path}",
                where=f"{path}: name",
                fix="give each model a name of its own; baselines are filed by it",
            )
        specs[spec.name] = spec
    return list(specs.values())


def read_spec(path: Path) -> ModelSpec:
    """Read and check one spec, without looking into its ONNX graph. Raises `SpecError`."""
    try:
        table = tomllib.loads(read_bytes(path, limit_bytes=TEXT_LIMIT_BYTES).decode())
    except (ValueError, RecursionError) as error:  # a number of 5000 digits is a plain ValueError
        raise SpecError(f"is not valid TOML: {error}", where=path, fix=toml_fix(error)) from error
    _refuse_non_finite(path, table)
    spec = _convert(path, table)
    _check(path, spec)
    return spec


def _refuse_non_finite(path: Path, value: Any, key: str = "") -> None:
    if isinstance(value, dict):
        for name, inner in value.items():
            _refuse_non_finite(path, inner, f"{key}.{name}".lstrip("."))
    elif isinstance(value, float) and not math.isfinite(value):
        raise SpecError(f"{value} is not a finite number", where=f"{path}: {key}", fix="write a number")


def _convert(path: Path, table: dict[str, Any]) -> ModelSpec:
    if "path" in table:
        raise SpecError("unknown key", where=f"{path}: path", fix="remove it")
    if "bf16" in str(table.get("precisions", "")).lower():
        raise SpecError(
            "BF16 is not made: no light converter that is kept up writes it, and TensorRT 8.5 lacks it",
            where=f"{path}: precisions",
            fix="fp16, with exclude = [...] in [precision] for what needs FP32's range",
        )
    try:
        return msgspec.convert({**table, "path": str(path)}, ModelSpec)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        key = _spelled(where.rstrip("`").lstrip("."), table) or "top level"
        unknown = re.search(r"unknown field `(.*)`", what)
        if unknown:
            key = f"{key}.{unknown[1]}".removeprefix("top level.")
            raise SpecError("unknown key", where=f"{path}: {key}", fix=_near(unknown[1])) from error
        what, key, fix = explained(what[0].lower() + what[1:], key, _value_at(key, table))
        if key == "schema" or what.startswith("schema"):
            fix = f'add schema = "{MODEL_SCHEMA}"'
        raise SpecError(what, where=f"{path}: {key}", fix=fix) from error


def _value_at(key: str, table: dict[str, Any]) -> Any:
    """The value at a dotted key; None where a part of it is no table."""
    value: Any = table
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


_TABLES = (
    Source,
    DimensionSpec,
    CaseRule,
    Floor,
    InputData,
    Slo,
    PrecisionPolicy,
    Calibration,
    AccuracyPolicy,
)
_DICTIONARIES: dict[str, type[Record]] = {"dims": DimensionSpec, "inputs": InputData, "floors": Floor}


def _spelled(key: str, table: dict[str, Any]) -> str:
    """The key with the name of the entry that does not fit, where msgspec writes `dims[...]`."""
    section, hidden, rest = key.partition("[...]")
    if not hidden or section not in _DICTIONARIES:
        return key
    kind = _DICTIONARIES[section]
    name = next((name for name, value in table[section].items() if not _fits(value, kind)), "…")
    return f"{section}.{name}{rest}"


def _fits(value: object, kind: type[Record]) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def _near(key: str) -> str:
    import difflib

    known = {field for kind in (*_TABLES, ModelSpec, SkipRule) for field in kind.__struct_fields__} - {"path"}
    close = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {close[0]!r}?" if close else "remove it, or see README, Model specs"


def _check(path: Path, spec: ModelSpec) -> None:
    if spec.name != path.stem:
        raise SpecError(
            f"the name {spec.name!r} is not the file's", where=f"{path}: name", fix=f'name = "{path.stem}"'
        )
    _check_source(path, spec.source)
    for key, values in (("precisions", spec.precisions), ("modes", spec.modes)):
        if len(set(values)) != len(values):
            raise SpecError("names a value twice", where=f"{path}: {key}", fix="remove the repeated value")
    for name, dim in spec.dims.items():
        _check_dimension(f"{path}: dims.{name}", dim)
    for name, data in spec.inputs.items():
        _check_input(path, name, data)
    for mode in spec.modes:
        parse_mode(mode, where=f"{path}: modes")
    if spec.ignore and spec.catch and spec.ignore >= spec.catch:
        raise SpecError(
            f"ignore ({spec.ignore:g}) is not below catch ({spec.catch:g})",
            where=f"{path}: ignore",
            fix="a slowdown to ignore must be smaller than one to catch, such as 0.005 and 0.02",
        )
    _check_promises(path, spec)
    for plugin in spec.plugins:
        if not _is_file(path.parent / plugin):
            raise SpecError(f"no such file: {plugin}", where=f"{path}: plugins", fix="put it beside the spec")
    _check_precision(path, spec)


def _check_precision(path: Path, spec: ModelSpec) -> None:
    """Every file that the precision tables name lies beside the spec, and is of a kind that we read."""
    for precision, graph in spec.precision.graphs.items():
        _inside(path, graph, f"precision.graphs.{precision}")
    for key, name, kinds in (
        ("calibration.data", spec.calibration.data, (".npz", ".py", "")),
        ("accuracy.data", spec.accuracy.data, (".npz", ".py", "")),
        ("accuracy.metric", spec.accuracy.metric, (".py",)),
    ):
        if not name:
            continue
        _inside(path, name, key, folder="" in kinds)
        if Path(name).suffix not in kinds:
            raise SpecError(
                f"{name} is of no kind that is read here",
                where=f"{path}: {key}",
                fix="a .py" if kinds == (".py",) else "a .npz, a folder of .npy files, or a .py",
            )


def _check_promises(path: Path, spec: ModelSpec) -> None:
    if (spec.slo.service_p99_ms is None) is not (spec.slo.service_qps is None):
        raise SpecError(
            "service_p99_ms and service_qps go together",
            where=f"{path}: slo",
            fix="a tail with queueing is a promise at a load: set both; engine_p99_ms is one query at a time",
        )
    for where, floors in (("floors", spec.floors), *((f"rule {r.cases}", r.floors) for r in spec.rule)):
        if unknown := sorted(floors.keys() - JUDGED_METRICS):
            raise SpecError(
                f"no metric {unknown[0]!r} has a floor",
                where=f"{path}: {where}",
                fix=f"one of: {', '.join(sorted(JUDGED_METRICS))}",
            )


def _check_source(path: Path, source: Source) -> None:
    if bool(source.script) == bool(source.onnx):
        raise SpecError(
            "needs exactly one of script and onnx",
            where=f"{path}: source",
            fix='script = "model.py" writes the file, or onnx = "model.onnx" names it',
        )
    key, name = ("script", source.script) if source.script else ("onnx", source.onnx)
    _inside(path, name, f"source.{key}")


def _inside(path: Path, name: str, key: str, *, folder: bool = False) -> None:
    """`name` is a file (or a folder, where that will do) in the spec's folder. Raises `SpecError`."""
    inside = path.parent.resolve()
    target = path.parent / name
    if Path(name).is_absolute() or not _resolved(target).is_relative_to(inside):
        raise SpecError(f"{name} is outside {inside}", where=f"{path}: {key}", fix="keep it beside the spec")
    if not _is_file(target) and not (folder and target.is_dir()):
        raise SpecError(
            f"no such file: {name}", where=f"{path}: {key}", fix=f"put it in {path.parent} or correct it"
        )


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


def _check_dimension(where: str, dim: DimensionSpec) -> None:
    if not dim.min <= dim.opt <= dim.max:
        raise SpecError(
            f"min {dim.min}, opt {dim.opt}, max {dim.max} are not in order",
            where=where,
            fix="min <= opt <= max must hold",
        )
    outside = [value for value in dim.measure if not dim.min <= value <= dim.max]
    if outside:
        raise SpecError(
            f"measures {outside[0]}, outside the profile {dim.min} to {dim.max}",
            where=f"{where}.measure",
            fix="widen min and max, or measure inside them",
        )
    if len(set(dim.measure)) != len(dim.measure):
        raise SpecError("names a value twice", where=f"{where}.measure", fix="remove the repeated value")


def _check_input(path: Path, name: str, data: InputData) -> None:
    where = f"{path}: inputs.{name}"
    if data.file_digest:
        raise SpecError("unknown key", where=f"{where}.file_digest", fix="remove it; perfgate computes it")
    if (data.generate == "file") != bool(data.file):
        raise SpecError(
            'generate = "file" and file = "…" go together',
            where=where,
            fix='file = "inputs.npy", beside the spec',
        )
    if data.file and not _is_file(path.parent / data.file):
        raise SpecError(f"no such file: {data.file}", where=f"{where}.file", fix=f"put it in {path.parent}")
    if data.generate in ("integers", "uniform") and data.low >= data.high:
        raise SpecError(
            f"low {data.low:g} is not below high {data.high:g}",
            where=where,
            fix="values are drawn from [low, high)",
        )
    if data.generate == "integers" and not -(2**63) <= int(data.low) < int(data.high) <= 2**63:
        raise SpecError(
            f"no whole number lies from {data.low:g} to {data.high:g}, or not in 64 bits",
            where=where,
            fix="low and high are whole numbers of at most 64 bits",
        )


def parse_mode(text: str, *, where: str) -> Mode:
    """`graph`, `enqueue`, `call`, with `+transfers`, `+spin`, `+x4` (streams) behind; else `SpecError`."""
    drive, *more = text.split("+")
    fields: dict[str, Any] = {"drive": drive}
    for word in more:
        if word == "transfers":
            fields["transfers"] = True
        elif word == "spin":
            fields["wait"] = "spin"
        elif re.fullmatch(r"x[1-9][0-9]?", word):
            fields["streams"] = int(word[1:])
        else:
            fields["drive"] = text
    try:
        return msgspec.convert(fields, Mode)
    except msgspec.ValidationError as error:
        raise SpecError(
            f"no such mode: {text!r}",
            where=where,
            fix="graph, enqueue or call, then any of +transfers, +spin, +x4: such as graph+transfers",
        ) from error
