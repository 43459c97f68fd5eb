"""The models of both sides for a bundle, where their sources are here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from perfgate.errors import PerfgateError
from perfgate.gate.explain.bundle import Model, base_commit
from perfgate.model.manifest import other_checkout
from perfgate.model.onnx_file import export_onnx
from perfgate.model.read import read_spec
from perfgate.model.sources import Sources
from perfgate.records import CaseResult, RunResult
from perfgate.settings import Settings
from perfgate.util.git import worktree


def models_of(
    settings: Settings,
    run: RunResult,
    case: CaseResult,
    stack: contextlib.ExitStack,
    say: Callable[[str], None],
) -> dict[str, Model]:
    """Both sides' models where their sources are here: head's in the tree or at its commit, base's at its
    own. Worktrees stay until `stack` is closed."""
    root, models = Path(settings.root), {}
    for side, sha in (("head", run.commit.sha), ("base", base_commit(run, case))):
        wanted = case.recipe.onnx_digest if side == "head" and case.recipe else ""
        places = [root] if side == "head" else []
        try:
            found = None
            for place in places:
                found = _model_at(settings, place, case, wanted)
            if found is None and sha:
                found = _model_at(settings, stack.enter_context(worktree(root, sha)), case, wanted)
        except PerfgateError as error:
            say(f"{side}'s model is not in the bundle: {error.what}")
            continue
        if found is None:
            say(f"{side}'s model is not in the bundle: its source is not here")
        else:
            models[side] = found
    return models


def _model_at(settings: Settings, place: Path, case: CaseResult, wanted: str) -> Model | None:
    """The model that a place's files make; None where they are not the source that was measured."""
    path = place / case.case.source
    if not case.case.source or not path.is_file():
        return None
    spec = read_spec(path)
    sources = Sources(settings.path("store").resolve(), replaces=other_checkout(Path(settings.root), place))
    made = export_onnx(spec, sources)
    if wanted and made.graph.onnx_digest != wanted:
        return None
    return Model.of(spec, made)
