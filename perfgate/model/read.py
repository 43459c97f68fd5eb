"""Reading `models/<name>.toml`: every mistake one line with file, key and remedy.

Mistakes of keys and types are told all at once; where there are none, those of what the spec says.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from perfgate.errors import DataError, PerfgateError, SpecError
from perfgate.model.spec import ModelSpec
from perfgate.model.validate.messages import raise_all
from perfgate.model.validate.rules import mistakes_of
from perfgate.model.validate.types import misfits
from perfgate.util.files import TEXT_LIMIT_BYTES, parse_toml, read_bytes, toml_fix

_MOST_DOTS = 500  # the time that a dotted key takes grows with the square of its parts


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
    """Read all specs under `paths`. Raises `SpecError` for one that cannot be read, and for two of one
    name."""
    specs, broken = sort_specs(paths)
    raise_all(broken.values())
    return specs


def sort_specs(paths: list[Path]) -> tuple[list[ModelSpec], dict[Path, PerfgateError]]:
    """The specs under `paths` that can be read, and by their file what is wrong with the others.
    Raises `SpecError` where none can be read, though there are some."""
    specs: dict[str, ModelSpec] = {}
    broken: dict[Path, PerfgateError] = {}
    for path in find_specs(paths):
        try:
            spec = read_spec(path)
        except (SpecError, DataError) as error:
            broken[path] = error
            continue
        if spec.name in specs:
            twice = SpecError(
                f"two models are named {spec.name!r}: the other is {specs[spec.name].path}",
                where=f"{path}: name",
                fix="give each model a name of its own; baselines are filed by it",
            )
            broken[path] = twice
            continue
        specs[spec.name] = spec
    if not specs:
        raise_all(broken.values())
    return list(specs.values()), broken


def read_spec(path: Path) -> ModelSpec:
    """Read and check one spec, without looking into its ONNX graph. Raises `SpecError`, and `DataError` for a
    file that is too large."""
    data = read_bytes(path, limit_bytes=TEXT_LIMIT_BYTES)
    if any(line.count(b".") > _MOST_DOTS for line in data.splitlines()):
        raise SpecError(f"has a line with over {_MOST_DOTS} dots", where=path, fix="no spec needs that")
    try:
        table = parse_toml(data)
    except (ValueError, RecursionError) as error:  # a number of 5000 digits is a plain ValueError
        raise SpecError(f"is not valid TOML: {error}", where=path, fix=toml_fix(error)) from error
    raise_all(misfits(path, table))
    try:
        spec = msgspec.convert({**table, "path": str(path)}, ModelSpec)
    except msgspec.ValidationError as error:
        raise SpecError(str(error)[:1000], where=path, fix="see README, Model specs") from error
    raise_all(mistakes_of(path, spec))
    return spec
