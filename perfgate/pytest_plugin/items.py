"""What pytest collects: a spec file, and in it one item a case."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import pytest

from perfgate.errors import PerfgateError
from perfgate.model.spec import ModelSpec
from perfgate.records import Case, CaseResult, Measured, Verdict
from perfgate.run.pipeline import Pipeline

VERDICT = "perfgate_verdict"
EXIT_CODE = "perfgate_exit_code"
COLLECT_CODE = pytest.StashKey[int]()


class Gate(Protocol):
    """What items need of the session that measures for them."""

    @property
    def pipeline(self) -> Pipeline: ...

    def read_spec(self, path: Path) -> ModelSpec | None: ...

    def result_of(self, case_id: str) -> CaseResult: ...

    def exit_code_of(self, verdict: Verdict) -> int: ...


class GateFailure(Exception):
    """A red case: the text is the whole report of the failed test."""


class SpecFile(pytest.File):
    """`models/<name>.toml`; collecting it runs no script and builds nothing."""

    gate: Gate

    def collect(self) -> Iterable[pytest.Item]:
        spec = self.gate.read_spec(self.path)
        for case in self.gate.pipeline.cases(spec) if spec else ():
            yield CaseItem.make(self, self.gate, case.id.split("/", 1)[1], spec=spec, case=case)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, PerfgateError):
            self.stash[COLLECT_CODE] = excinfo.value.exit_code
            return f"perfgate: {excinfo.value}"
        return super().repr_failure(excinfo)


class CaseItem(pytest.Item):
    """One case; it is measured with all others before the first item runs, and only reports here."""

    gate: Gate
    spec: ModelSpec | None
    case: Case
    ghost: CaseResult | None

    @classmethod
    def make(
        cls,
        parent: Any,
        gate: Gate,
        name: str,
        *,
        spec: ModelSpec | None = None,
        case: Case,
        ghost: CaseResult | None = None,
    ) -> CaseItem:
        item: CaseItem = cls.from_parent(parent, name=name)
        item.gate, item.spec, item.case, item.ghost = gate, spec, case, ghost
        return item

    def runtest(self) -> None:
        result = self.gate.result_of(self.case.id)
        judgement = result.judgement
        assert judgement is not None
        self.user_properties.append((VERDICT, judgement.verdict.value))
        if judgement.head.get("latency_ns"):
            self.user_properties.append(("perfgate_launch_medians_ns", judgement.head["latency_ns"]))
        if judgement.verdict is Verdict.NOT_RUN:
            pytest.skip(judgement.reason)
        code = self.gate.exit_code_of(judgement.verdict)
        if code:
            self.user_properties.append((EXIT_CODE, code))
            raise GateFailure(failure_text(result))

    def measured_s(self) -> float:
        """Seconds spent measuring this case; what junit reports as the item's time."""
        outcome = self.gate.result_of(self.case.id).outcome
        if not isinstance(outcome, Measured):
            return 0.0
        return sum(one.wall_ns + one.load_ns + one.first_inference_ns for one in outcome.launches) / 1e9

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, GateFailure):
            return str(excinfo.value)
        if isinstance(excinfo.value, PerfgateError):
            return f"perfgate: {excinfo.value}"
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Any, int | None, str]:
        return self.path, None, self.case.id


def failure_text(result: CaseResult) -> str:
    """The readable reason of a red case: verdict, case, reason, and the end of a failed child's output."""
    judgement = result.judgement
    assert judgement is not None
    lines = [f"{judgement.verdict.value}: {result.case.id}", f"  {judgement.reason}"]
    lines += [f"  {d.field}: baseline {d.base}, here {d.head}" for d in judgement.differences]
    tail = getattr(result.outcome, "stderr_tail", "")
    if tail:
        lines += ["  the process's last words:", *(f"    {line}" for line in tail.splitlines()[-20:])]
    return "\n".join(lines)
