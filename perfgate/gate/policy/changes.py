"""Policy: what judges a change. It is read from base, and what a change would alter in it is listed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from perfgate.errors import DataError
from perfgate.gate.baselines import read_baseline
from perfgate.gate.policy.waivers import WAIVERS_NAME, read_waivers
from perfgate.model.spec import ModelSpec
from perfgate.records import BaselineCase, PolicyChange, digest
from perfgate.util.files import file_digest

MOST_CHANGES: Final = 1_000
_TEXT: Final = 2_000
ANCHORS: Final = "anchors"
# Of a spec: what decides whether it passes or is run at all. The rest describes the model.
SPEC_FIELDS: Final = ("ignore", "catch", "floors", "rule", "slo", "builds", "pick", "skip", "accuracy")


def with_policy(spec: ModelSpec, judge: ModelSpec | None) -> ModelSpec:
    """The model of `spec`, judged as `judge` has it; a new model brings its own."""
    if judge is None:
        return spec
    return msgspec.structs.replace(spec, **{name: getattr(judge, name) for name in SPEC_FIELDS})


def setting_changes(base: Mapping[str, Any], head: Mapping[str, Any], where: str) -> list[PolicyChange]:
    """Settings whose value differs."""
    return [
        PolicyChange(where=f"{where}.{name}", base=_text(base[name]), head=_text(head[name]))
        for name in sorted(base)
        if base[name] != head[name]
    ]


def spec_changes(
    base: Mapping[str, ModelSpec], head: Mapping[str, ModelSpec], where: str
) -> list[PolicyChange]:
    """Tolerances, promises and skips of models that both sides have, and models that head lacks."""
    found = []
    for name, judge in sorted(base.items()):
        file = f"{where}/{Path(judge.path).name}"
        if name not in head:
            found.append(PolicyChange(where=file, base="a model", head="removed"))
            continue
        found += [
            PolicyChange(
                where=f"{file}: {field}",
                base=_text(getattr(judge, field)),
                head=_text(getattr(head[name], field)),
            )
            for field in SPEC_FIELDS
            if getattr(judge, field) != getattr(head[name], field)
        ]
    return found


def baseline_changes(base: Path, head: Path, where: str) -> list[PolicyChange]:
    """Baselines and waivers that head edits, adds or deletes, a case at a time; anchors too, by file."""
    found: list[PolicyChange] = []
    for name in sorted(_files(base) | _files(head)):
        sides = (base / name, head / name)
        if all(path.is_file() for path in sides) and len({file_digest(path) for path in sides}) == 1:
            continue
        entries = [_entries(path) for path in sides]
        for key in sorted(entries[0].keys() | entries[1].keys()):
            one, other = (side.get(key, "absent") for side in entries)
            if one != other:
                at = f"{where}/{name}: {key}" if key else f"{where}/{name}"
                found.append(PolicyChange(where=at, base=one[:_TEXT], head=other[:_TEXT]))
    return found


def _files(root: Path) -> set[str]:
    return {
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink() and path.suffix in (".json", ".timing", ".toml")
    }


def _entries(path: Path) -> dict[str, str]:
    """What a file says, by case; a file that says nothing by case is one entry."""
    if not path.is_file():
        return {}
    try:
        if path.name == WAIVERS_NAME:
            return {one.case: f"waived {one}" for one in read_waivers(path.parent)}
        if path.suffix == ".json" and ANCHORS not in path.parts:
            return {key: _described(case) for key, case in read_baseline(path).cases.items()}
    except DataError as error:
        return {"": f"cannot be read: {error.what}"}
    return {"": f"sha-256 {file_digest(path)[:16]}"}


def _described(case: BaselineCase) -> str:
    """In a line, with a short name of all that it says, so that no edit of it looks like none."""
    values = case.metrics["latency_ns"]
    return (
        f"{statistics.median(values) / 1e6:.4g} ms over {len(values)} launches, promoted {case.promoted} "
        f"({case.reason}), {digest(case)[:12]}"
    )


def _text(value: object) -> str:
    if value is None:
        return "the default"
    return msgspec.json.encode(value, order="sorted").decode()[:_TEXT]
