"""Who judges: the policy of the tree under test or, in CI, of base. A change cannot rewrite its judge, and
what it would alter in it is listed."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import statistics
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from perfgate.errors import DataError, PerfgateError, UsageError
from perfgate.gate.baselines import read_baseline
from perfgate.gate.policy.releases import ANCHORS, find_release
from perfgate.gate.policy.waivers import WAIVERS_NAME, read_waivers
from perfgate.model.read import find_specs, read_spec
from perfgate.model.spec import ModelSpec
from perfgate.records import BaselineCase, Commit, PolicyChange, digest
from perfgate.settings import Settings, load_settings
from perfgate.util.files import file_digest
from perfgate.util.git import find_base, resolve, worktree

# As `--base baseline`: each case against the commit that its own baseline was promoted from.
OF_BASELINE: Final = "baseline"
# As `--policy-from base`: the commit that the change starts from.
OF_BASE: Final = "base"
# Settings that decide a verdict. The rest is where things are, and what they run on.
POLICY: Final = (
    "catch",
    "confirm_budget",
    "duration_ms",
    "foreign_cpu_limit",
    "ignore",
    "launches",
    "min_samples",
    "mode",
    "require_baseline",
    "warmup_ms",
)


class ActivePolicy:
    """The settings to run with, the specs that judge, and what head would change in either.

    With `policy_from` it holds the files of that commit in a temporary folder until `close`, or until it is
    garbage.
    """

    def __init__(self, settings: Settings, flags: Mapping[str, Any]) -> None:
        """`flags` are what `settings` were loaded with: the command line goes over either side's policy.

        Raises `UsageError` where the commit is not there: nothing is judged by head's own policy then.
        """
        self.settings = settings
        self.commit = Commit()
        self.changes: tuple[PolicyChange, ...] = ()
        self._specs: dict[str, ModelSpec] = {}
        self._owner: ActivePolicy | None = None
        self._stack = contextlib.ExitStack()
        self.close = weakref.finalize(self, self._stack.close)
        if settings.policy_from:
            with contextlib.ExitStack() as undo:
                undo.callback(self.close)
                self._take_from(settings, flags)
                undo.pop_all()
        self.waivers = read_waivers(self.settings.path("baselines"))

    def compare_to_release(self, anchor: str) -> None:
        """Judge by the baselines of a release, and launch that release's own engines as base.

        Waivers and tolerances stay those of today. Raises `UsageError` for an anchor that is not there.
        """
        folder = find_release(self.settings.path("baselines"), anchor)
        try:
            base = resolve(Path(self.settings.root), anchor).sha
        except UsageError:
            base = OF_BASELINE
        self.settings = dataclasses.replace(self.settings, baselines=str(folder), base=base)

    def spec(self, spec: ModelSpec) -> ModelSpec:
        """The model with the policy that judges it."""
        return with_policy(spec, self._specs.get(spec.name))

    def on_device(self, device: str) -> ActivePolicy:
        """The same on another device of this machine."""
        same = copy.copy(self)
        same.settings = dataclasses.replace(self.settings, device=device)
        # The folder goes with the first, which this one keeps alive.
        same._owner = self
        return same

    def _take_from(self, settings: Settings, flags: Mapping[str, Any]) -> None:
        root = Path(settings.root)
        self.commit = _commit(root, settings)
        place = self._stack.enter_context(worktree(root, self.commit.sha))
        judge = load_settings({**flags, "base": None, "policy_from": None}, start=place)
        self._specs = _specs(judge.path("models"))
        values = [{name: getattr(one, name) for name in POLICY} for one in (judge, settings)]
        changes = [
            *setting_changes(values[0], values[1], "pyproject.toml: tool.perfgate"),
            *spec_changes(self._specs, _specs(settings.path("models")), settings.models),
            *baseline_changes(judge.path("baselines"), settings.path("baselines"), judge.baselines),
        ]
        self.changes = tuple(changes[:MOST_CHANGES])
        self.settings = dataclasses.replace(settings, **values[0], baselines=str(judge.path("baselines")))


def _commit(root: Path, settings: Settings) -> Commit:
    if settings.policy_from != OF_BASE:
        return resolve(root, settings.policy_from)
    # `--base baseline` names a commit a case, and none of the change.
    asked = "" if settings.base == OF_BASELINE else settings.base
    base = find_base(root, asked, target=settings.target)
    if not base.commit.sha:
        raise UsageError(
            base.why, where="policy_from", fix=base.fix or "name the revision: --policy-from REV"
        )
    return base.commit


def _specs(folder: Path) -> dict[str, ModelSpec]:
    """The specs under a folder by name. One that cannot be read judges nothing: its own run reports it."""
    found: dict[str, ModelSpec] = {}
    with contextlib.suppress(PerfgateError):
        for path in find_specs([folder]):
            with contextlib.suppress(PerfgateError):
                spec = read_spec(path)
                found[spec.name] = spec
    return found


MOST_CHANGES: Final = 1_000
_TEXT: Final = 2_000
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
