"""Times as records write them: ISO 8601."""

from __future__ import annotations

from datetime import datetime, timezone


def instant(text: str) -> datetime:
    """ISO 8601 as an aware time in UTC; without a zone it is UTC. Raises `ValueError`."""
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    try:
        return moment.replace(tzinfo=moment.tzinfo or timezone.utc).astimezone(timezone.utc)
    except OverflowError as error:
        raise ValueError(str(error)) from error
