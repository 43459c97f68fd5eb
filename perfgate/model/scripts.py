"""The calls of a spec's scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perfgate.errors import SpecError
from perfgate.model.manifest import Call, ScriptCall, project_of
from perfgate.model.spec import ModelSpec


def script_call(
    spec: ModelSpec, script: str, call: Call, arguments: dict[str, Any], *, replaces: str = ""
) -> ScriptCall:
    """A call of one of a spec's scripts (a path relative to the spec). Raises `SpecError` for a declared path
    that is not in the project."""
    project = project_of(spec.folder)
    return ScriptCall(
        script=str((spec.folder / script).resolve()),
        project=str(project),
        call=call,
        arguments=arguments,
        environment=spec.source.env,
        reads=tuple(_declared(spec, name, project) for name in spec.source.reads),
        replaces=replaces,
    )


def model_call(spec: ModelSpec, replaces: str = "") -> ScriptCall:
    """The call of a spec's `write_onnx`."""
    source = spec.source
    arguments = {"seed": source.seed, **{f"args.{name}": value for name, value in source.args.items()}}
    return script_call(spec, source.script, "write_onnx", arguments, replaces=replaces)


def _declared(spec: ModelSpec, name: str, project: Path) -> str:
    """A declared path, relative to the project."""
    try:
        return str((spec.folder / name).resolve(strict=True).relative_to(project))
    except (OSError, ValueError) as error:
        raise SpecError(
            f"{name!r} is not in the project",
            where=f"{spec.path}: source.reads",
            fix=f"name a file or folder below {project}",
        ) from error
