"""One self-contained HTML file: no script, no request, and a policy that forbids both."""

from __future__ import annotations

import base64
import hashlib

from jinja2 import Environment

from perfgate.records import RunResult
from perfgate.report import format as fmt
from perfgate.report.detail import case_detail
from perfgate.report.strip import LEFT, RIGHT, WIDTH
from perfgate.report.templating import page_environment
from perfgate.report.view import NOTE, run_view

SECTIONS = 1_000  # a file that a browser still opens; the table and the JSON hold every case


def render(result: RunResult) -> str:
    """The report as one HTML page. The same result makes the same bytes."""
    environment = page_environment()
    view = run_view(result)
    sections = view.rows[:SECTIONS]
    return environment.get_template("report.html.j2").render(
        view=view,
        policy=_policy(environment),
        note=NOTE,
        sections=((row, case_detail(result.cases[row.number])) for row in sections),
        linked=frozenset(row.number for row in sections),
        hidden=len(view.rows) - len(sections),
        environment=(("key", _facts(result.environment.key)), ("noted", _facts(result.environment.noted))),
        plot=(LEFT, RIGHT, WIDTH),
    )


def _facts(facts: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((fmt.line(name), fmt.line(value)) for name, value in sorted(facts.items()))


def _policy(environment: Environment) -> str:
    """The Content-Security-Policy: nothing at all, but this very style sheet."""
    style = environment.get_template("report.css").render()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    rules = ("default-src 'none'", f"style-src 'sha256-{digest}'", "img-src data:", "base-uri 'none'")
    return "; ".join((*rules, "form-action 'none'"))
