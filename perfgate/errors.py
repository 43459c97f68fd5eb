"""Every error that a user may meet: what went wrong, where, and how to fix it.

The exit code belongs to the error's kind: 2 is usage or configuration, 3 is environment or
infrastructure (CI may retry it). A case's own failure is not an exception that leaves the run:
it becomes a `Failed` outcome, and `CaseError` is how a room reports one.
"""

from __future__ import annotations

from pathlib import Path


class PerfgateError(Exception):
    """Base of all errors that perfgate reports in one block and without a traceback."""

    exit_code = 2

    def __init__(self, what: str, *, where: str | Path | None = None, fix: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = None if where is None else str(where)
        self.fix = fix

    def __str__(self) -> str:
        text = self.what if self.where is None else f"{self.where}: {self.what}"
        return text if self.fix is None else f"{text}\n  fix: {self.fix}"


class UsageError(PerfgateError):
    """Flags, settings or paths that do not fit."""


class SpecError(PerfgateError):
    """A mistake in `models/*.toml` or in the model that it names."""


class DataError(PerfgateError):
    """A baseline or results file that is damaged, foreign, too large, or of another schema."""


class RefusedError(PerfgateError):
    """A request that perfgate understands and declines, such as promoting a failed case."""


class OutputError(PerfgateError):
    """An output that could not be written."""


class InfrastructureError(PerfgateError):
    """The machine's fault, not the commit's: no device, lock timeout, full disk."""

    exit_code = 3


class CaseError(PerfgateError):
    """The case's own fault: it does not build, or its launch crashed, hung or printed garbage.

    `kind` is the name of the class it was raised as, which survives the way out of a child process, or of the
    signal that ended the child.
    """

    exit_code = 1

    def __init__(self, what: str, *, stderr_tail: str = "", fix: str | None = None, kind: str = "") -> None:
        super().__init__(what, fix=fix)
        self.stderr_tail = stderr_tail
        self.kind = kind or type(self).__name__

    @property
    def reason(self) -> str:
        """What a `Failed` outcome says: what went wrong, and how to fix it."""
        return f"{self.what}; {self.fix}" if self.fix else self.what
