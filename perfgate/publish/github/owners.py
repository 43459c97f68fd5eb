"""Who owns a file, by CODEOWNERS: the last pattern that matches wins."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from perfgate.util.files import TEXT_LIMIT_BYTES, read_bytes

_PLACES = (".github/CODEOWNERS", "CODEOWNERS", "docs/CODEOWNERS")
_OWNER = re.compile(r"@[A-Za-z0-9][A-Za-z0-9-]{0,38}(/[A-Za-z0-9._-]{1,100})?")


def read_owners(root: Path) -> list[tuple[str, list[str]]]:
    """Patterns with their owners, in the file's order; the first file that is there counts, as on GitHub."""
    path = next((root / place for place in _PLACES if (root / place).is_file()), None)
    if path is None:
        return []
    text = read_bytes(path, limit_bytes=TEXT_LIMIT_BYTES).decode(errors="replace")
    rules = (line.split("#")[0].split() for line in text.splitlines())
    return [(words[0], [word for word in words[1:] if _OWNER.fullmatch(word)]) for words in rules if words]


def owners_of(path: str, rules: Sequence[tuple[str, list[str]]]) -> list[str]:
    """The owners of a file of the repository; none where no pattern matches or the last one has none."""
    matching = (owners for pattern, owners in reversed(rules) if re.fullmatch(_expression(pattern), path))
    return next(matching, [])


def _expression(pattern: str) -> str:
    """A gitignore-like pattern as GitHub reads it: `/` in front or inside ties it to the root."""
    tied = "/" in pattern.rstrip("/")
    text = pattern.strip("/")
    made = re.escape(text).replace(r"\*\*/", "(?:.*/)?").replace(r"\*\*", ".*")
    made = made.replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
    # A pattern `docs/*` names the files of the folder alone; any other one a folder and all below.
    below = "" if text.endswith("/*") else "(?:/.*)?"
    return ("" if tied else "(?:.*/)?") + made + below
