"""What another interpreter has to run models with: `python -m perfgate.measure.other_interpreter` there.

`RemoteBackend` stands for that interpreter's backend here, for digests and recipes. Its builds and launches
are processes of that interpreter.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NoReturn

from perfgate.engine import get_backend
from perfgate.engine.interface import Axes, Backend, BuildRequest, Runner
from perfgate.errors import CaseError, InfrastructureError, UsageError
from perfgate.measure.environment import fingerprint
from perfgate.records import Case, EngineFacts, Environment, Mode, Record
from perfgate.util.interpreter import Interpreter
from perfgate.util.process import call_child, serve

_TIMEOUT_S = 120


class Question(Record):
    backend: str
    device: str
    source_digest: str = ""


class Description(Record):
    """A backend as it is there. `unavailable` says why it cannot run; the rest is empty then."""

    unavailable: str = ""
    versions: dict[str, str] = {}
    modes: tuple[Mode, ...] = ()
    kind: str = ""
    typing: Literal["weak", "strong"] = "strong"
    device: str = ""
    options: dict[str, str | int | float | bool] = {}
    environment: Environment | None = None


def describe(question: Question) -> Description:
    """The description of this interpreter's backend."""
    backend = get_backend(question.backend, question.device)
    if reason := backend.unavailable():
        return Description(unavailable=reason)
    return Description(
        versions=backend.versions(),
        modes=backend.modes(),
        kind=backend.kind,
        typing=backend.typing(),
        device=backend.device(),
        options=backend.build_options(question.source_digest),
        environment=fingerprint(backend, question.device),
    )


class RemoteBackend(Backend):
    """The backend of another interpreter. Raises `InfrastructureError` where it cannot run there."""

    def __init__(self, name: str, device: str, python: Interpreter) -> None:
        self.name, self._device, self._python = name, device, python
        self._known: dict[str, Description] = {}
        where = f"backend {name} in {python.image or python.python}"
        try:
            reason = self._describe("").unavailable
        except OSError as error:
            raise UsageError(f"cannot be started: {error.strerror}", where=where) from error
        except CaseError as error:
            last = error.stderr_tail.strip().splitlines()[-1:] or [""]
            raise InfrastructureError(
                f"perfgate cannot run there: {error.what}: {last[0]}",
                where=where,
                fix="it needs the libraries of `pip install perfgate` and the backend's own",
            ) from error
        if reason:
            raise InfrastructureError(reason, where=where, fix="choose another base")

    def _describe(self, source_digest: str) -> Description:
        if source_digest not in self._known:
            question = Question(backend=self.name, device=self._device, source_digest=source_digest)
            self._known[source_digest] = call_child(
                "perfgate.measure.other_interpreter",
                question,
                Description,
                timeout_s=_TIMEOUT_S,
                python=self._python,
            )
        return self._known[source_digest]

    @property
    def environment(self) -> Environment:
        found = self._describe("").environment
        assert found is not None
        return found

    def unavailable(self) -> str | None:
        return None

    def versions(self) -> dict[str, str]:
        return self._describe("").versions

    def modes(self) -> tuple[Mode, ...]:
        return self._describe("").modes

    @property
    def kind(self) -> str:
        return self._describe("").kind

    def typing(self) -> Literal["weak", "strong"]:
        return self._describe("").typing

    def build_options(self, source_digest: str = "") -> dict[str, str | int | float | bool]:
        return self._describe(source_digest).options

    def device(self) -> str:
        return self._describe("").device

    def refuses(self, case: Case) -> str | None:
        """Nothing is refused from here: what cannot be built there says so itself."""
        return None

    def build(self, request: BuildRequest) -> EngineFacts:
        _not_here()

    def load(self, engine: Path, case: Case, axes: Axes | None = None) -> Runner:
        _not_here()


def environment_differences(base: Environment, head: Environment) -> Mapping[str, tuple[str, str]]:
    """Every field, key or noted, in which two environments differ."""
    sides = [{**one.noted, **one.key} for one in (base, head)]
    names = sorted(sides[0].keys() | sides[1].keys())
    pairs = {name: (sides[0].get(name, "absent"), sides[1].get(name, "absent")) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _not_here() -> NoReturn:
    raise InfrastructureError("another interpreter's engines are built and launched there only")


if __name__ == "__main__":
    serve(Question, describe)
