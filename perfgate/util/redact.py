"""What must not leave this machine in a file that is meant for others: paths, names of hosts, secrets."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

_SECRET_NAME = re.compile(r"TOKEN|SECRET|KEY|PASS|AUTH|CRED|COOKIE|WEBHOOK|DSN|PRIVATE|SIGN", re.I)
_LEAST_SECRET, _LEAST_VALUE = 4, 12
# Host names that name nobody, and are words of the records.
_NO_NAMES = {"", "localhost", "gpu", "cpu", "host", "node", "model", "base", "head", "vm", "runner"}
# What goes on behind the beginning of a path.
_REST = r"(?:/[^\s\"'<>|:,;`)\]]*)?"
# What secrets and places look like, whoever they belong to.
_PATTERNS = (
    (
        re.compile(r"\b(?:gh[pousr]_|github_pat_|glpat-|hf_|sk-|pk_live_|sk_live_|xox[abprs]-)[\w-]{8,}"),
        "<token>",
    ),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{12,}\b"), "<token>"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"), "<token>"),
    (re.compile(r"(?i)\b(?:bearer|basic)\s+[\w.~+/=-]{8,}"), "<token>"),
    (
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S),
        "<key>",
    ),
    (
        re.compile(r"(?i)\b(password|passwd|secret|token|api[_-]?key)\b(\s*[=:]\s*)[^\s\"',;]{4,}"),
        r"\1\2<secret>",
    ),
    (re.compile(r"\b([a-z][a-z0-9+.-]*://)[^/\s\"'@]+@"), r"\1<login>@"),
    (re.compile(r"(?<![\w.])[\w.+-]+@[\w-]+(?:\.[\w-]+)+"), "<address>"),
    (re.compile(r"\b(?:GPU|MIG)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.I), "<uuid>"),
    # Four numbers may be a version of TensorRT: an address is one in a private network, or with a port.
    (re.compile(r"(?<![\d.])(?:192\.168|172\.(?:1[6-9]|2\d|3[01]))\.\d{1,3}\.\d{1,3}(?![\d.])"), "<ip>"),
    (re.compile(r"(?:(?<=//)|(?<=@))(?:\d{1,3}\.){3}\d{1,3}(?![\d.])"), "<ip>"),
    (re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}:\d{2,5}\b"), "<ip>"),
    (
        re.compile(
            r"(?<![\w.<])/(?:home|root|Users|mnt|tmp|var|opt|srv|data|work|workspace|builds|run|usr|github|__w)"
            r"(?:/[^\s\"'<>|:,;`)\]]*)?"
        ),
        "<path>",
    ),
    (re.compile(r"\b[A-Za-z]:\\\\?[^\s\"'<>|]+"), "<path>"),
)


class Scrubber:
    """Replaces what is private in text. It knows this machine's own names besides the general patterns."""

    def __init__(
        self,
        places: Iterable[Path] = (),
        environ: Mapping[str, str] = os.environ,
        hostname: str | None = None,
    ) -> None:
        host = socket.gethostname() if hostname is None else hostname
        known = {value: "<environment>" for name, value in environ.items() if _is_private(name, value)}
        for place in (*places, Path.home()):
            for path in {str(place), str(place.absolute()), str(place.resolve())}:
                if len(path) > 1:
                    known[path] = "<path>"
        for name in {host, host.split(".")[0]} - _NO_NAMES:
            known[name] = "<host>"
        # The longest first: a folder's name may begin with another's.
        self._known = sorted(known.items(), key=lambda item: -len(item[0]))

    def __call__(self, text: str) -> str:
        for word, said in self._known:
            if word in text:
                tail = _REST if said == "<path>" else ""
                text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9]){tail}", said, text)
        for pattern, said in _PATTERNS:
            text = pattern.sub(said, text)
        return text

    def finds(self, data: bytes) -> bool:
        """Whether bytes, such as a model's, hold a name or secret of this machine."""
        return any(word.encode() in data for word, _ in self._known)


def _is_private(name: str, value: str) -> bool:
    if _SECRET_NAME.search(name):
        return len(value) >= _LEAST_SECRET
    return len(value) >= _LEAST_VALUE and not name.startswith("PERFGATE_")
