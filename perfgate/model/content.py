"""The SHA-256 of a file's content; that of a large file is computed once and kept in the store."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shlex
import time
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from perfgate.errors import DataError, SpecError
from perfgate.records import Record, Sha256, Text
from perfgate.util.files import file_digest, read_record, record_json, write_text
from perfgate.util.git.program import git_output

KEPT_FROM_BYTES = 16 << 20
# A file may be written again within one tick of its time stamp, and look the same.
SETTLED_S = 2
_KEPT_LIMIT_BYTES = 64 << 10
_POINTER_LIMIT_BYTES = 1024
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize \d+\n?"
)
_INDEXED = re.compile(r"H 100(?:644|755) ([0-9a-f]{40}(?:[0-9a-f]{24})?) 0\t[^\0]*\0?")
# Attributes with which a file in the working tree may differ from its blob.
_FILTERS = ("filter", "text", "crlf", "eol", "ident", "working-tree-encoding")


class _Kept(Record):
    """Digests that are kept under a key."""

    key: Text
    digests: Annotated[tuple[Sha256, ...], Meta(min_length=1, max_length=10)]


def content_digest(path: Path, cache: Path | None = None) -> str:
    """SHA-256 (hex) of a file's content; of a Git LFS pointer, that of the content it stands for.

    With `cache`, the digest of a file of at least 16 MiB is kept there: by its blob id where git knows the
    file as unchanged, otherwise by path, size, times and inode. Raises `SpecError` for what is not a regular
    file, `OSError` for a file that cannot be read, and as `write_text` does where `cache` cannot be written.
    """
    path = path.resolve()
    if not path.is_file():
        raise SpecError("is not a regular file", where=path, fix="name a file that is there")
    if oid := lfs_oid(path):
        return oid
    if cache is None or path.stat().st_size < KEPT_FROM_BYTES:
        return file_digest(path)
    before, settled = stat_facts(path), is_settled(path)
    blob = clean_blob(path)
    key = f"git blob {blob}" if blob else f"file {str(path)!a} {before}"
    if kept := read_kept(cache, key):
        return kept[0]
    found = file_digest(path)
    if settled and stat_facts(path) == before:
        keep(cache, key, found)
    return found


def lfs_oid(path: Path) -> str:
    """The SHA-256 that a Git LFS pointer names; empty for any other file. Raises `OSError`."""
    with path.open("rb") as source:
        start = source.read(_POINTER_LIMIT_BYTES)
    pointer = _POINTER.fullmatch(start)
    return pointer[1].decode() if pointer else ""


def refuse_lfs_pointer(path: Path) -> None:
    """Raises `SpecError` for a file that is a Git LFS pointer, and `OSError` where it cannot be read."""
    if lfs_oid(path):
        top = next((one for one in path.parents if (one / ".git").exists()), path.parent)
        name = shlex.quote(path.relative_to(top).as_posix())
        raise SpecError(
            "is a Git LFS pointer: the file itself was not fetched",
            where=path,
            fix=f"git lfs pull --include={name}",
        )


def stat_facts(path: Path) -> str:
    """Size, times and inode: a file that was written again has others. Raises `OSError`."""
    about = path.stat()
    return f"{about.st_size} {about.st_mtime_ns} {about.st_ctime_ns} {about.st_ino}"


def is_settled(path: Path) -> bool:
    """Whether a file is so old that writing it again would change its times. Raises `OSError`."""
    return time.time() - path.stat().st_mtime >= SETTLED_S


def read_kept(cache: Path, key: str) -> tuple[str, ...] | None:
    """The digests that are kept under a key; None where there are none, or their file is damaged."""
    with contextlib.suppress(DataError):
        kept = read_record(_kept_path(cache, key), _Kept, limit_bytes=_KEPT_LIMIT_BYTES)
        return kept.digests if kept.key == key else None
    return None


def keep(cache: Path, key: str, *digests: str) -> None:
    """Keep digests under a key. Raises as `write_text` does."""
    write_text(_kept_path(cache, key), record_json(_Kept(key=key, digests=digests)))


def _kept_path(cache: Path, key: str) -> Path:
    return cache / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def clean_blob(path: Path) -> str | None:
    """The id of the blob that holds a file's very bytes: git tracks the file, finds it unchanged, and puts it
    into the working tree without a filter. None otherwise, and where git does not run."""
    indexed = _INDEXED.fullmatch(_git(path, "ls-files", "-z", "-s", "-v", "-c", "-m", "--", path.name) or "")
    if indexed is None:
        return None
    # NAME, ATTRIBUTE and VALUE, each ended by a NUL.
    words = (_git(path, "check-attr", "-z", *_FILTERS, "--", path.name) or "").split("\0")
    values = dict(zip(words[1::3], words[2::3], strict=False))
    if set(values) != set(_FILTERS) or not set(values.values()) <= {"unspecified", "unset"}:
        return None
    if values["text"] != "unset":
        converts = _git(path, "config", "--default", "false", "--get", "core.autocrlf")
        if converts is None or converts.lower() != "false":
            return None
    return indexed[1]


def _git(path: Path, *words: str) -> str | None:
    """What git prints for a file's folder; None where it fails."""
    # Whatever the repository's settings are, git looks at the file, and at all of its times.
    settings = ("core.fsmonitor=false", "core.trustctime=true", "core.checkStat=default")
    options = [word for setting in settings for word in ("-c", setting)]
    return git_output(path.parent, "--literal-pathspecs", *options, *words)
