"""Whether a TOML table has the keys and types of a spec: where msgspec stops at the first mistake, this walks
the records' fields and finds them all."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import msgspec

from perfgate.errors import SpecError
from perfgate.model.spec import MODEL_SCHEMA, ModelSpec
from perfgate.model.validate.messages import explained
from perfgate.records import Record

_LONGEST = 200
_TOP = "top level"
Key = tuple[str | int, ...]


def misfits(path: Path, table: dict[str, Any]) -> Iterator[SpecError]:
    """The mistakes of keys and types in a spec's table."""
    table = dict(table)
    if "path" in table:
        del table["path"]
        yield _error(path, ("path",), "unknown key", "remove it")
    if "bf16" in str(table.get("precisions", "")).lower():
        table["precisions"] = ["fp32"]
        yield _error(
            path,
            ("precisions",),
            "BF16 is not made: no light converter that is kept up writes it, and TensorRT 8.5 lacks it",
            "fp16, with exclude = [...] in [precision] for what needs FP32's range",
        )
    yield from _of(path, table, ModelSpec, ())


def _of(path: Path, value: Any, kind: Any, key: Key) -> Iterator[SpecError]:
    plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    inner = get_args(plain)
    if _is_record(plain) and isinstance(value, dict):
        yield from _of_record(path, value, plain, key)
    elif get_origin(plain) is dict and isinstance(value, dict):
        for name, entry in value.items():
            yield from _of_leaf(path, name, inner[0], (*key, name), named=True)
            yield from _of(path, entry, inner[1], (*key, name))
    elif get_origin(plain) is tuple and isinstance(value, list) and _is_record(inner[0]):
        for number, entry in enumerate(value):
            yield from _of(path, entry, inner[0], (*key, number))
    else:
        yield from _of_leaf(path, value, kind, key)


def _is_record(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Record)


def _of_record(path: Path, table: dict[str, Any], kind: type[Record], key: Key) -> Iterator[SpecError]:
    fields = {field.name: field for field in msgspec.structs.fields(kind) if field.name != "path"}
    odd = [name for name in table if name not in fields]
    for name in odd:
        yield _error(path, (*key, name), "unknown key", _meant(name, kind, top=not key))
    for name in [name for name in table if name in fields]:
        if found := list(_of(path, table[name], fields[name].type, (*key, name))):
            odd.append(name)
            yield from found
    for name, field in fields.items():
        # A key that is missing where one much like it does not fit is that one, spelled wrongly.
        if field.required and name not in table and not difflib.get_close_matches(name, odd, n=1):
            yield _explained(path, f"object missing required field `{name}`", key, table)


def _of_leaf(path: Path, value: Any, kind: Any, key: Key, *, named: bool = False) -> Iterator[SpecError]:
    """What msgspec says of a value that has no tables inside, or of an entry's name."""
    if isinstance(value, float) and not math.isfinite(value):
        yield _error(path, key, f"{value} is not a finite number", "write a number")
        return
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        within = re.fullmatch(r"\[(\d{1,9})\].*`", where)
        place = (*key, int(within[1])) if within else key[:-1] if named else key
        yield _explained(path, what[0].lower() + what[1:], place, value)


def _explained(path: Path, what: str, key: Key, value: Any) -> SpecError:
    place = _spelled(key)
    what, fix = explained(what, place, value)
    if key == ("schema",) or what.startswith("schema"):
        fix = f'add schema = "{MODEL_SCHEMA}"'
    return SpecError(_short(what), where=f"{path}: {place or _TOP}", fix=fix)


def _error(path: Path, key: Key, what: str, fix: str) -> SpecError:
    return SpecError(_short(what), where=f"{path}: {_spelled(key)}", fix=fix)


def _spelled(key: Key) -> str:
    """A key as TOML has it: `rule[0].cases`, `inputs."model.x".low`."""
    said = ""
    for step in key:
        if isinstance(step, int):
            said += f"[{step}]"
        else:
            plain = re.fullmatch(r"[A-Za-z0-9_-]+", step)
            said += f".{_short(step) if plain else json.dumps(_short(step), ensure_ascii=False)}"
    return said.removeprefix(".")


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _meant(name: str, kind: type[Record], *, top: bool) -> str:
    """What an unknown key was probably meant to be."""
    if not top and name in ModelSpec.__struct_fields__:
        return f"{name} belongs above the first [table] of the file"
    name, known = _short(name), _known(ModelSpec)
    for names in (set(kind.__struct_fields__) - {"path"}, known):
        if close := difflib.get_close_matches(name, names - {name}, n=1):
            return f"did you mean {close[0]!r}?"
    return "it belongs to another table" if name in known else "remove it, or see README, Model specs"


def _known(kind: Any) -> set[str]:
    """The names of all fields of a record and of the records in it."""
    names: set[str] = set()
    if _is_record(kind):
        for field in msgspec.structs.fields(kind):
            names |= {field.name} | _known(field.type)
    for inner in get_args(kind):
        names |= _known(inner)
    return names - {"path"}
