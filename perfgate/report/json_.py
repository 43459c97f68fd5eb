"""The result itself, as canonical JSON: what every other report can be made from again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perfgate.files import record_json

if TYPE_CHECKING:
    from perfgate.records import RunResult


def render(result: RunResult) -> str:
    """The result as reviewable JSON (`perfgate-trt/results/v1`)."""
    return record_json(result)
