"""What every sender over HTTP needs: how long to wait, and that nothing secret reaches a log."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import re
from collections.abc import Iterator
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult, urlsplit

import requests

_TALKATIVE = ("urllib3.connectionpool", "urllib3.connection", "urllib3.util.retry", "requests")


def split_url(url: str) -> SplitResult | None:
    """The parts of a URL that has a host; None for one that cannot be read."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        # A port that is none raises when it is asked for.
        return parts if parts.port != -1 and parts.hostname else None
    return None


def is_private(parts: SplitResult) -> bool:
    """Whether nobody reads along: https, or a host that is this machine."""
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or number alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def request_fault(error: Exception, timeout_s: float) -> str:
    """Why a request had no answer, in words that never show its address."""
    words = {
        requests.exceptions.SSLError: "its certificate could not be verified",
        requests.Timeout: f"no answer within {timeout_s:g} s",
        requests.exceptions.ChunkedEncodingError: "the answer was cut off",
        requests.ConnectionError: "no connection",
    }
    known = next((text for kind, text in words.items() if isinstance(error, kind)), None)
    return known or f"the request failed ({type(error).__name__})"


def retry_after(value: str) -> float | None:
    """Seconds, from seconds or a date; None where there is nothing to read."""
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        if re.fullmatch(r"\d{1,9}", value.strip()):
            return float(value)
        until = parsedate_to_datetime(value)
        zoned = until if until.tzinfo else until.replace(tzinfo=timezone.utc)
        return max(0.0, (zoned - datetime.now(timezone.utc)).total_seconds())
    return None


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep the HTTP library's own log lines, which have the URL's path in them, from every handler."""

    def drop(record: logging.LogRecord) -> bool:
        return False

    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    for logger in loggers:
        logger.addFilter(drop)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(drop)
