"""The words of a report in the reader's language: gettext catalogues, one a domain, English in the code."""

from __future__ import annotations

import gettext
from pathlib import Path

LANGUAGES = ("en", "zh-CN")
DOMAINS = ("report", "value")
_LOCALES = Path(__file__).parent / "locale"


def translations(language: str) -> gettext.NullTranslations:
    """All domains' words in one of `LANGUAGES`; a word that no catalogue has stays English."""
    joined = gettext.NullTranslations()
    for domain in DOMAINS:
        found = gettext.translation(domain, _LOCALES, [language.replace("-", "_")], fallback=True)
        joined.add_fallback(found)
    return joined
