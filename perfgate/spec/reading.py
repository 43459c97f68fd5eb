"""Reading `models/<name>.toml`: every mistake one line with file, key and remedy, and all of them at once."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from perfgate.errors import SpecError
from perfgate.files import TEXT_LIMIT_BYTES, read_bytes, toml_fix
from perfgate.records import Floor, InputData, Record, Slo
from perfgate.spec.checks import mistakes_of
from perfgate.spec.mistakes import MOST_TOLD, explained, tell
from perfgate.spec.model import MODEL_SCHEMA, CaseRule, DimensionSpec, ModelSpec, SkipRule, Source
from perfgate.spec.policy import AccuracyPolicy, Calibration, PrecisionPolicy

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

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
_MISSING = "Object missing required field `"
# What must not be missing, and a value that fits: reading goes on with it, to find further mistakes.
_FITTING: dict[str | int, Any] = {
    "schema": MODEL_SCHEMA,
    "name": "model",
    "precisions": ["fp32"],
    "source": {},
    "min": 1,
    "opt": 1,
    "max": 1,
    "measure": [1],
    "cases": "*",
    "reason": "none",
}
_DICTIONARIES: dict[str, type[Record]] = {"dims": DimensionSpec, "inputs": InputData, "floors": Floor}


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
    mistakes: list[SpecError] = []
    for path in find_specs(paths):
        try:
            spec = read_spec(path)
        except SpecError as error:
            mistakes.append(error)
            continue
        if spec.name in specs:
            twice = SpecError(
                f"two models are named {spec.name!r}: the other is {specs[spec.name].path}",
                where=f"{path}: name",
                fix="give each model a name of its own; baselines are filed by it",
            )
            mistakes.append(twice)
        specs[spec.name] = spec
    tell(mistakes)
    return list(specs.values())


def read_spec(path: Path) -> ModelSpec:
    """Read and check one spec, without looking into its ONNX graph. Raises `SpecError`."""
    try:
        table = tomllib.loads(read_bytes(path, limit_bytes=TEXT_LIMIT_BYTES).decode())
    except (ValueError, RecursionError) as error:  # a number of 5000 digits is a plain ValueError
        raise SpecError(f"is not valid TOML: {error}", where=path, fix=toml_fix(error)) from error
    tell(_not_finite(path, table))
    spec = _convert(path, table)
    tell(mistakes_of(path, spec))
    return spec


def _not_finite(path: Path, value: Any, key: str = "") -> Iterator[SpecError]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _not_finite(path, inner, f"{key}.{name}".lstrip("."))
    elif isinstance(value, float) and not math.isfinite(value):
        yield SpecError(f"{value} is not a finite number", where=f"{path}: {key}", fix="write a number")


def _convert(path: Path, table: dict[str, Any]) -> ModelSpec:
    """The table as a spec. msgspec stops at the first mistake, so what does not fit is replaced by something
    that does, or taken out, and the rest tried until nothing more is found."""
    mistakes, mended = _unwanted(path, table), list[list[str | int]]()
    for _ in range(MOST_TOLD):
        try:
            spec = msgspec.convert({**table, "path": str(path)}, ModelSpec)
        except msgspec.ValidationError as error:
            mistake, steps = _mistake(path, table, error)
            # A key that is missing where another was unknown is that one, spelled wrongly.
            if not (str(error).startswith(_MISSING) and steps[:-1] in [one[:-1] for one in mended]):
                mistakes.append(mistake)
            if steps in mended or not _mend(table, steps):
                break
            mended.append(steps)
        else:
            tell(mistakes)
            return spec
    tell(mistakes)
    raise AssertionError("what does not fit is told")


def _unwanted(path: Path, table: dict[str, Any]) -> list[SpecError]:
    """What has words of its own, mended in `table`."""
    found = []
    if "path" in table:
        found.append(SpecError("unknown key", where=f"{path}: path", fix="remove it"))
    if "bf16" in str(table.get("precisions", "")).lower():
        error = SpecError(
            "BF16 is not made: no light converter that is kept up writes it, and TensorRT 8.5 lacks it",
            where=f"{path}: precisions",
            fix="fp16, with exclude = [...] in [precision] for what needs FP32's range",
        )
        found.append(error)
        table["precisions"] = _FITTING["precisions"]
    return found


def _mistake(
    path: Path, table: dict[str, Any], error: msgspec.ValidationError
) -> tuple[SpecError, list[str | int]]:
    """What msgspec found, in TOML's words, and the steps to the key that it is about."""
    what, _, where = str(error).partition(" - at `$")
    place = _spelled(where.rstrip("`").lstrip("."), table)
    if unknown := re.search(r"unknown field `(.*)`", what):
        key = f"{place}.{unknown[1]}".lstrip(".")
        return SpecError("unknown key", where=f"{path}: {key}", fix=_near(unknown[1])), _steps(key)
    missing = what.removeprefix(_MISSING).rstrip("`") if what.startswith(_MISSING) else ""
    what, key, fix = explained(what[0].lower() + what[1:], place or "top level", _value_at(table, place))
    if key == "schema" or what.startswith("schema"):
        fix = f'add schema = "{MODEL_SCHEMA}"'
    steps = _steps(place) + ([missing] if missing else [])
    return SpecError(what, where=f"{path}: {key}", fix=fix), steps


def _steps(key: str) -> list[str | int]:
    """`rule[0].cases` as its steps from the top."""
    return [int(number) if number else name for name, number in re.findall(r"([^.\[\]]+)|\[(\d+)\]", key)]


def _mend(table: dict[str, Any], steps: Sequence[str | int]) -> bool:
    """Put what fits in the place of what does not, or nothing; False where it cannot be reached."""
    names = [number for number, step in enumerate(steps) if isinstance(step, str)]
    if not names:
        return False
    *parents, last = steps[: names[-1] + 1]  # of a list, all of it
    try:
        inside = _inside(table, parents)
        if last in _FITTING:
            inside[last] = _FITTING[last]
        else:
            del inside[last]
    except (KeyError, IndexError, TypeError):
        return False
    return True


def _value_at(table: dict[str, Any], key: str) -> Any:
    """The value at `key`; None where nothing lies there."""
    try:
        return _inside(table, _steps(key))
    except (KeyError, IndexError, TypeError):
        return None


def _inside(value: Any, steps: Sequence[str | int]) -> Any:
    for step in steps:
        value = value[step]
    return value


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
