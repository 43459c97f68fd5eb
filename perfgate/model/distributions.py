"""The installed Python distributions: their versions, and whose a file of theirs is."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path

from perfgate.util.interpreter import site_folders

ABSENT = "absent"


def installed_version(name: str) -> str:
    """The version of an installed distribution, or `absent`."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ABSENT


@functools.cache
def identity(name: str) -> str:
    """What an installed distribution is known by: its version. One that came from a folder, a repository or a
    file of one's own may change without it: its record of files counts as well."""
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        # A module that was looked for in vain: the script may do something else once it is there.
        return ABSENT if importlib.util.find_spec(name) is None else "module"
    direct = found.read_text("direct_url.json")
    if direct is None:
        return found.version
    if json.loads(direct).get("dir_info", {}).get("editable"):
        return f"{found.version} editable"
    rows = [row for row in (found.read_text("RECORD") or "").splitlines() if ",sha256=" in row]
    files = sorted(row for row in rows if ".dist-info/" not in row and not row.startswith(".."))
    return f"{found.version} {hashlib.sha256(chr(10).join(files).encode()).hexdigest()[:16]}"


def owner(top_level: str) -> str:
    """The distribution that a file or folder directly in a site folder belongs to; empty for none."""
    return _owners().get(top_level, "")


@functools.cache
def _owners() -> Mapping[str, str]:
    """The distribution of each name in the site folders, whose name need not be the module's: PIL comes with
    pillow. `importlib.metadata.packages_distributions` makes an object of each file, which takes ten times
    longer."""
    found: dict[str, str] = {}
    for folder in site_folders():
        for place in (*Path(folder).glob("*.dist-info"), *Path(folder).glob("*.egg-info")):
            name = place.stem.split("-")[0].replace("_", "-")
            found[place.name] = name
            listed, column = ("RECORD", ",") if place.suffix == ".dist-info" else ("top_level.txt", "\n")
            with contextlib.suppress(OSError):
                for row in (place / listed).read_text(errors="replace").splitlines():
                    found.setdefault(row.partition(column)[0].partition("/")[0].strip('"'), name)
    return found
