"""What the models of a run are made from: where scripts are run, and what is known of their results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from perfgate.records import Manifest

T = TypeVar("T")


class Sources:
    """One side's sources. `store` keeps what scripts made, `manifests` are those of the baselines. `replaces`
    is the other checkout that this one stands for (base's side; empty on head's). With `again` everything is
    made again, whatever is known of it. `used` collects the manifests that this run went by, by model and
    key."""

    def __init__(
        self, store: Path, manifests: Sequence[Manifest] = (), *, replaces: str = "", again: bool = False
    ) -> None:
        self.store, self.manifests, self.replaces, self.again = store, tuple(manifests), replaces, again
        self.used: dict[str, dict[str, Manifest]] = {}
        self._made: dict[tuple[Any, ...], Any] = {}

    def once(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        """What `make` returns, made once in the life of these sources."""
        if key not in self._made:
            self._made[key] = make()
        found: T = self._made[key]
        return found

    def use(self, model: str, manifest: Manifest) -> None:
        self.used.setdefault(model, {})[manifest.key] = manifest
