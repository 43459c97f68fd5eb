"""A zip that says all that is known of a regression and runs elsewhere: ready to attach to an issue."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from perfgate.engine.tensorrt.api import version_tuple
from perfgate.engine.tensorrt.inspect import unpack_layers
from perfgate.errors import PerfgateError, RefusedError
from perfgate.gate.explain.trtexec import build_and_run, shell_line
from perfgate.gate.verdict.judge import measured_mode
from perfgate.model.external_data import read_external_files
from perfgate.model.graph import GraphInput
from perfgate.model.manifest import other_checkout
from perfgate.model.onnx_file import SourceModel, export_onnx, script_files
from perfgate.model.read import read_spec
from perfgate.model.sources import Sources
from perfgate.model.spec import ModelSpec
from perfgate.records import CaseResult, EngineFacts, Launch, Measured, Recipe, Record, RunResult
from perfgate.settings import Settings
from perfgate.util.files import record_json
from perfgate.util.git import worktree
from perfgate.util.redact import Scrubber

# Zip files know no earlier day; a date of its own would make two bundles of one run differ.
_EPOCH = (1980, 1, 1, 0, 0, 0)
_SIDES = ("base", "head")


class Model(Record, kw_only=True):
    """One side's model: its inputs, the generator's files by name, and where the ONNX file lies here, with
    the SHA-256 of its bytes."""

    inputs: tuple[GraphInput, ...] = ()
    onnx: str = ""
    file_digest: str = ""
    script: str = ""
    seed: int = 0
    args: dict[str, int | float | str | bool] = {}
    files: dict[str, bytes] = {}

    @classmethod
    def of(cls, spec: ModelSpec, made: SourceModel) -> Model:
        source, folder, graph = spec.source, spec.folder.resolve(), made.graph
        return cls(
            inputs=graph.inputs,
            onnx=made.path,
            file_digest=graph.file_digest,
            script=source.script,
            seed=source.seed,
            args=source.args,
            files={str(p.relative_to(folder)): p.read_bytes() for p in script_files(spec, made.manifest)},
        )


class Bundle:
    """Collects the files. What is private is replaced in every text; a generator that would have to be
    changed for that is left out, and a model that holds such a thing is refused."""

    def __init__(
        self, run: RunResult, case: CaseResult, models: Mapping[str, Model], scrub: Scrubber
    ) -> None:
        self._run, self._case, self._models, self._scrub = run, case, models, scrub
        self._files: dict[str, bytes] = {}
        self._left_out: list[str] = []

    def zipped(self, *, include_weights: bool = False) -> bytes:
        """The zip's bytes, the same for the same run. Raises `RefusedError`."""
        self._records()
        for side in _SIDES:
            self._side(side, include_weights=include_weights)
        self._text("README.md", self._readme(include_weights=include_weights))
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name, data in sorted(self._files.items()):
                about = zipfile.ZipInfo(f"perfgate-bundle/{name}", date_time=_EPOCH)
                about.compress_type = zipfile.ZIP_DEFLATED
                about.create_system = 3
                about.external_attr = (0o755 if name.endswith(".sh") else 0o644) << 16
                archive.writestr(about, data, compresslevel=9)
        return out.getvalue()

    def _text(self, name: str, text: str) -> None:
        self._files[name] = self._scrub(text).encode()

    def _records(self) -> None:
        case = self._case
        self._text("case.json", record_json(case.case))
        if case.judgement:
            self._text("judgement.json", record_json(case.judgement))
        if case.explanation:
            shown = msgspec.structs.replace(case.explanation, base_engine=None, base_recipe=None)
            self._text("explanation.json", record_json(shown))
        self._text(
            "environment.json",
            record_json(
                {
                    "environment": _public(self._run.environment.key, self._run.environment.noted),
                    "protocol": self._run.protocol,
                    "perfgate": self._run.perfgate,
                    "commits": {"head": self._run.commit.sha, "base": base_commit(self._run, case)},
                }
            ),
        )

    def _side(self, side: str, *, include_weights: bool) -> None:
        recipe, facts, launches = sides_of(self._case)[side]
        model = self._models.get(side, Model())
        if recipe:
            self._text(f"{side}/recipe.json", record_json(recipe))
        if facts:
            self._text(f"{side}/engine.json", record_json(msgspec.structs.replace(facts, layer_record="")))
            if facts.layer_record:
                self._text(f"{side}/layers.json", record_json(unpack_layers(facts.layer_record)))
        if launches:
            told = {"launches": [_without_processes(launch) for launch in launches]}
            self._text(f"{side}/launches.json", record_json(told))
        if recipe and (words := self.command(side)):
            self._text(f"{side}/trtexec.sh", f"#!/bin/sh\n# {self._versions(recipe)}\nset -eu\n{words}\n")
        self._generator(side, model)
        if include_weights and model.onnx:
            self._weights(side, Path(model.onnx))

    def command(self, side: str) -> str:
        """The exact trtexec command of a side; empty for another backend or without a version."""
        recipe = sides_of(self._case)[side][0]
        version = version_tuple(recipe.versions.get("tensorrt", "")) if recipe else ()
        if recipe is None or recipe.backend != "tensorrt" or not version:
            return ""
        inputs = self._models.get(side, self._models.get("head", Model())).inputs
        mode = measured_mode(self._case.case, self._case.outcome)
        case = msgspec.structs.replace(self._case.case, mode=mode)
        words = build_and_run(recipe, case, inputs, self._run.protocol, version, side)
        return shell_line(words)

    def _generator(self, side: str, model: Model) -> None:
        if not model.files:
            return
        for name, data in sorted(model.files.items()):
            text = data.decode(errors="replace")
            if self._scrub(text) != text:
                self._left_out.append(f"{side}/generator/{name}")
                return
        for name, data in model.files.items():
            self._files[f"{side}/generator/{name}"] = data
        self._text(f"{side}/generate.py", _generate(side, model))

    def _weights(self, side: str, onnx: Path) -> None:
        # External data keeps its name, which the ONNX file refers to.
        files = {f"{side}.onnx": onnx} | {
            path.relative_to(onnx.parent).as_posix(): path for path in read_external_files(onnx)
        }
        for name, path in files.items():
            data = path.read_bytes()
            if self._scrub.finds(data):
                raise RefusedError(
                    f"{side}'s model holds a path, host name or secret of this machine, in {name}",
                    where="--include-weights",
                    fix="export the model without doc strings, or leave the weights out",
                )
            self._files[f"{side}/{name}"] = data

    @staticmethod
    def _versions(recipe: Recipe) -> str:
        return ", ".join(f"{name} {version}" for name, version in sorted(recipe.versions.items()))

    def _readme(self, *, include_weights: bool) -> str:
        case = self._case
        judged = case.judgement
        lines = [f"# {case.case.id}", ""]
        if judged:
            lines += [f"**{judged.verdict.value}**: {judged.reason}", ""]
        if case.explanation:
            lines += [f"Cause: {case.explanation.cause}.", ""]
        lines += ["## Reproduce", ""]
        for side in _SIDES:
            recipe, facts, _ = sides_of(case)[side]
            if recipe is None:
                lines += [f"- {side}: no recipe is known; run `perfgate run --base REV` to record one."]
                continue
            lines += [f"- {side}: {self._versions(recipe) or recipe.backend}"]
            lines += [f"  - ONNX graph digest `{recipe.onnx_digest}`"]
            if found := self._models.get(side, Model()).file_digest:
                lines += [f"  - ONNX file SHA-256 `{found}`"]
            if facts:
                lines += [f"  - engine SHA-256 `{facts.digest}`, {facts.engine_bytes} bytes"]
            if f"{side}/{side}.onnx" in self._files:
                lines += [f"  - the model is here: `{side}/{side}.onnx`"]
            elif f"{side}/generate.py" in self._files:
                lines += [f"  - `cd {side} && python generate.py` writes `{side}.onnx` and checks its digest"]
            else:
                lines += [f"  - the model is not here: put its ONNX file at `{side}/{side}.onnx`"]
            if f"{side}/trtexec.sh" in self._files:
                lines += [f"  - `cd {side} && sh trtexec.sh` builds the engine and measures it"]
        lines += [
            "",
            f"Measured in mode: {measured_mode(case.case, case.outcome)}. "
            "The commands spell it out in the flags of that TensorRT, whose",
            "defaults changed in 11.0.",
            "",
        ]
        if not include_weights:
            lines += ["Weights are left out (`--include-weights` adds the ONNX files)."]
        lines += [f"Left out, because it holds a path, host or secret: `{name}`." for name in self._left_out]
        lines += ["", "## Files", "", *(f"- `{name}`" for name in sorted(self._files))]
        return "\n".join(lines) + "\n"


def sides_of(
    case: CaseResult,
) -> dict[str, tuple[Recipe | None, EngineFacts | None, tuple[Launch, ...]]]:
    """Recipe, engine and launches of base and head, as far as the results hold them."""
    explained, outcome = case.explanation, case.outcome
    measured = outcome if isinstance(outcome, Measured) else None
    return {
        "base": (
            explained.base_recipe if explained else None,
            explained.base_engine if explained else None,
            measured.base_launches if measured else (),
        ),
        "head": (
            case.recipe,
            measured.engine if measured else None,
            measured.launches if measured else (),
        ),
    }


def base_commit(run: RunResult, case: CaseResult) -> str:
    """The commit that the case was held against; empty where none is known."""
    judged = case.judgement
    confirmed = judged.confirmation.base_commit if judged and judged.confirmation else ""
    return confirmed or run.base.sha


def _without_processes(launch: Launch) -> Launch:
    """Process ids say nothing elsewhere."""
    telemetry = launch.telemetry and msgspec.structs.replace(launch.telemetry, foreign_pids=())
    return msgspec.structs.replace(launch, telemetry=telemetry)


def _public(key: Mapping[str, str], noted: Mapping[str, str]) -> dict[str, Any]:
    """Without what names one device among others of its kind."""
    hidden = ("uuid", "serial", "pci", "bus", "host")
    return {
        "key": dict(key),
        "noted": {n: v for n, v in noted.items() if not any(word in n.lower() for word in hidden)},
    }


def _generate(side: str, model: Model) -> str:
    """A script without dependencies on perfgate that makes the ONNX file and checks it."""
    return f'''"""Makes {side}.onnx with the generator in generator/ and checks its SHA-256."""

import hashlib
import importlib.util
import sys
from pathlib import Path

here = Path(__file__).resolve().parent
sys.path.insert(0, str(here / "generator"))
source = here / "generator" / {json.dumps(model.script)}
spec = importlib.util.spec_from_file_location("generator", source)
module = importlib.util.module_from_spec(spec)
sys.modules["generator"] = module
spec.loader.exec_module(module)
out = here / "{side}.onnx"
module.write_onnx(str(out), {model.seed}, **{dict(sorted(model.args.items()))!r})
found = hashlib.sha256(out.read_bytes()).hexdigest()
wanted = {json.dumps(model.file_digest)}
print(out.name, found)
if wanted and found != wanted:
    sys.exit("not the file that was measured: " + wanted + " (external data is part of that digest)")
'''


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
        try:
            found = _model_at(settings, root, case, wanted) if side == "head" else None
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
