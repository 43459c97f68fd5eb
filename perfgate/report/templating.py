"""The one way in which a page is made: every value escaped, every missing one an error."""

from __future__ import annotations

import functools

from jinja2 import Environment, PackageLoader, StrictUndefined

from perfgate.report import i18n, phrases


@functools.cache
def page_environment() -> Environment:
    """Jinja2 over `perfgate/report/templates`, with autoescape, no undefined values, and the words of the
    language being spoken (`i18n.speaking`)."""
    environment = Environment(
        loader=PackageLoader("perfgate.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    # Looked up at each call, not bound now: one environment speaks all languages.
    environment.install_gettext_callables(i18n.gettext, i18n.ngettext, newstyle=True)  # type: ignore[attr-defined]
    environment.tests["foreign"] = lambda text: isinstance(text, phrases.Untranslated)
    environment.globals["language"] = i18n.language
    return environment
