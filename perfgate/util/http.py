"""What every sender over HTTP needs: how long to wait, and that nothing secret reaches a log."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import re
from collections.abc import Iterator
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

_TALKATIVE = ("urllib3.connectionpool", "urllib3.connection", "urllib3.util.retry", "requests")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or number alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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
