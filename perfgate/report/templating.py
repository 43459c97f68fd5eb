"""The one way in which a page is made: every value escaped, every missing one an error."""

from __future__ import annotations

import base64
import functools
import hashlib

from jinja2 import Environment, PackageLoader, StrictUndefined

from perfgate.report import i18n, phrases


def content_policy(style: str, script: str = "") -> str:
    """The Content-Security-Policy of a page: nothing at all, but this very style sheet and script."""
    sources = [f"style-src '{_hash(style)}'", *([f"script-src '{_hash(script)}'"] if script else [])]
    return "; ".join(["default-src 'none'", *sources, "base-uri 'none'", "form-action 'none'"])


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


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
