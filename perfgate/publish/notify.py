"""One run against what each destination knows: what is due is sent, and remembered at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from perfgate.errors import InfrastructureError
from perfgate.publish.alerts import (
    STATE_SCHEMA,
    AlertState,
    Dated,
    Event,
    Limits,
    check_state,
    events,
    forget,
    settle,
)
from perfgate.publish.webhooks import Destination, send
from perfgate.records import RunResult
from perfgate.util.files import BASELINE_LIMIT_BYTES, read_record, record_json, write_text


class Notifier:
    """One run against what each destination knows."""

    def __init__(
        self,
        run: RunResult | None,
        now: datetime,
        limits: Limits,
        promoted: tuple[Dated, ...],
        waivers: tuple[Dated, ...],
        say: Callable[[str], None],
    ) -> None:
        self._run, self._now, self._limits = run, now, limits
        self._promoted, self._waivers, self._say = promoted, waivers, say

    def due(self, name: str, known: AlertState) -> list[Event]:
        memory = known.told.get(self._scope(name), {})
        return events(
            self._run, memory, self._now, self._limits, promoted=self._promoted, waivers=self._waivers
        )

    def notify(self, destination: Destination, known: AlertState, path: Path | None) -> list[str]:
        """Send what is due and remember each message at once; returns what could not be delivered."""
        scope, faults = self._scope(destination.name), []
        due = self.due(destination.name, known)
        memory = dict(known.told.get(scope, {}))
        if self._run is not None:
            memory = forget(
                self._run, memory, self._now, self._limits, promoted=self._promoted, waivers=self._waivers
            )
            # Results are there again: the next time that they are missing is news.
            known.told.pop(destination.name, None)
        for event in due:
            try:
                send(destination, event.alert)
            except InfrastructureError as error:
                faults.append(str(error))
                continue
            self._say(f"{destination}: {event.alert.title}")
            memory = settle(memory, event)
            _remember(known, scope, memory, path)
        _remember(known, scope, memory, path)
        if not due:
            self._say(f"{destination}: nothing new")
        return faults

    def _scope(self, name: str) -> str:
        # Two GPUs may run the same cases: one's recovery must not close the other's regression.
        return name if self._run is None else f"{name} {self._run.environment.device}"[:300]


def read_state(path: Path | None) -> AlertState:
    if path is None or not path.exists():
        return AlertState(schema=STATE_SCHEMA)
    return check_state(read_record(path, AlertState, limit_bytes=BASELINE_LIMIT_BYTES), str(path))


def _remember(known: AlertState, scope: str, memory: dict[Any, Any], path: Path | None) -> None:
    known.told[scope] = memory
    if not memory:
        del known.told[scope]
    if path is not None:
        write_text(path, record_json(known))
