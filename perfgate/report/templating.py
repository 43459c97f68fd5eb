"""The one way in which a page is made: every value escaped, every missing one an error."""

from __future__ import annotations

import functools

from jinja2 import Environment, PackageLoader, StrictUndefined


@functools.cache
def page_environment() -> Environment:
    """Jinja2 over `perfgate/report/templates`, with autoescape and no undefined values."""
    return Environment(
        loader=PackageLoader("perfgate.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
