"""Who judges: the policy of the tree under test or, in CI, of base. A change cannot rewrite its judge."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from perfgate.errors import PerfgateError, UsageError
from perfgate.gate.policy.changes import (
    MOST_CHANGES,
    baseline_changes,
    setting_changes,
    spec_changes,
    with_policy,
)
from perfgate.gate.policy.releases import find_release
from perfgate.gate.policy.waivers import read_waivers
from perfgate.model.read import find_specs, read_spec
from perfgate.model.spec import ModelSpec
from perfgate.records import Commit, PolicyChange
from perfgate.settings import Settings, load_settings
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
