"""One self-contained HTML file: no request, one script that only sorts and filters, and a policy that forbids
all else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from perfgate.records import Launch, Measured, RunResult
from perfgate.records.trend import Trend
from perfgate.report import charts, format as fmt, i18n
from perfgate.report.run.case import case_detail
from perfgate.report.run.strip_plot import LEFT, RIGHT, WIDTH
from perfgate.report.run.view import Row, run_view
from perfgate.report.templating import content_policy, page_environment

FULL = 30  # sections; of the quieter cases beyond, the launches are a plot alone
SECTIONS = 1_000  # a file that a browser still opens; the table and the JSON hold every case


def render(result: RunResult, language: str = "en", trends: Mapping[str, Trend] | None = None) -> str:
    """The report as one HTML page, with the trends of the cases by id where there are any.

    The same result and trends make the same bytes.
    """
    known = trends or {}
    environment = page_environment()
    with i18n.use_language(language):
        view = run_view(result)
        sections = view.rows[:SECTIONS]
        parts = (environment.get_template(name).render() for name in ("report.css", "report.js"))
        return environment.get_template("report.html.j2").render(
            view=view,
            policy=content_policy(*parts),
            sections=(
                (
                    row,
                    case_detail(
                        result,
                        result.cases[row.number],
                        trend=known.get(result.cases[row.number].case.id),
                        brief=place >= FULL,
                    ),
                )
                for place, row in enumerate(sections)
            ),
            full=FULL,
            drawings=_drawings(result, sections),
            drawable=charts.available(),
            linked=frozenset(row.number for row in sections),
            hidden=len(view.rows) - len(sections),
            environment=(
                ("key", _facts(result.environment.key)),
                ("noted", _facts(result.environment.noted)),
            ),
            plot=(LEFT, RIGHT, WIDTH),
        )


def _drawings(result: RunResult, rows: Sequence[Row]) -> dict[int, tuple[charts.Drawing, Markup]]:
    """The distribution of each of the worst cases, by the case's number."""
    drawn: dict[int, tuple[charts.Drawing, Markup]] = {}
    for row in rows:
        case = result.cases[row.number]
        if len(drawn) == charts.CHARTS:
            break
        if not isinstance(case.outcome, Measured):
            continue
        sides = (_samples(case.outcome.launches), _samples(case.outcome.base_launches))
        if drawing := charts.distribution(case, *sides):
            # Drawn from numbers and the catalogue's words alone: nothing in it is anybody else's text.
            drawn[row.number] = (drawing, Markup(drawing.body))  # noqa: S704
    return drawn


def _samples(launches: Sequence[Launch]) -> list[int]:
    return [x for launch in launches if not launch.invalid for x in launch.samples_ns]


def _facts(facts: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((fmt.line(name), fmt.line(value)) for name, value in sorted(facts.items()))
