"""Reports: each renderer draws the same `RunResult` and decides nothing.

`render` imports the one renderer that it needs, so that importing this package stays cheap.
"""

from __future__ import annotations

import importlib
from typing import Any

from perfgate.errors import UsageError
from perfgate.records import RunResult
from perfgate.util.files import record_json

FORMATS = ("terminal", "markdown", "html", "json", "pytest-benchmark")
_TRANSLATED = ("terminal", "markdown", "html")


def render(result: RunResult, format: str, language: str = "en") -> str:  # noqa: A002
    """The whole report as text in one of `FORMATS`; those for people are in `language`.

    Raises `UsageError` for any other format.
    """
    if format not in FORMATS:
        raise UsageError(f"unknown report format {format!r}", fix=f"choose one of {', '.join(FORMATS)}")
    if format == "json":
        return record_json(result)
    module: Any = importlib.import_module(f"perfgate.report.run.{format.replace('-', '_')}")
    text: str = module.render(result, language) if format in _TRANSLATED else module.render(result)
    return text
