"""The business case as one self-contained HTML page that prints on one sheet: no script, no request."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from perfgate.report import i18n
from perfgate.report.templating import content_policy, page_environment
from perfgate.report.value.charts import case_charts
from perfgate.report.value.view import case_view
from perfgate.value.business import BusinessCase


def render_case(case: BusinessCase, language: str = "en") -> str:
    """The page. The same case makes the same bytes."""
    environment = page_environment()
    with i18n.use_language(language):
        sheets = ("value_page.css", "value.css")
        style = "".join(environment.get_template(name).render() for name in sheets)
        return environment.get_template("value.html.j2").render(
            policy=content_policy(style),
            # The two style sheets are files of ours; a template would escape their child selectors.
            style=Markup(style),  # noqa: S704
            **fragment_values(case),
        )


def fragment_values(case: BusinessCase) -> dict[str, Any]:
    """What the macro `business` of `value_parts.html.j2` takes, for a page of another kind that shows it too.

    To be called, and the template rendered, inside `i18n.speaking`. The page must carry `value.css`.
    """
    drawn = tuple((chart, Markup(chart.body)) for chart in case_charts(case))  # noqa: S704 - numbers and our words
    return {"view": case_view(case), "drawings": drawn}
