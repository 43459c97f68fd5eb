"""The samples of a data set: files as they are, or what a data script yields, made once and kept by its
manifest."""

from __future__ import annotations

from pathlib import Path

from perfgate.model.content import content_digest
from perfgate.model.observed import ScriptRun, digest_cache, make
from perfgate.model.precision.data import LIMIT_BYTES
from perfgate.model.scripts import script_call
from perfgate.model.sources import Sources
from perfgate.model.spec import ModelSpec
from perfgate.records import Record, Sha256, Text, digest

_SCRIPT_TIMEOUT_S = 600


class Samples(Record):
    """Where the arrays lie (empty: they are drawn), and the digests of the files that they come in."""

    path: Text = ""
    identity: dict[Text, Sha256] = {}


def samples_of(spec: ModelSpec, name: str, count: int, seed: int, sources: Sources) -> Samples:
    """The samples of a spec's data set; of a script (`.py`) the first `count` that it yields for `seed`.

    Raises `CaseError` for a script that fails.
    """
    if not name:
        return Samples()
    return sources.once(
        ("samples", spec.path, name, count, seed), lambda: _samples(spec, name, count, seed, sources)
    )


def _samples(spec: ModelSpec, name: str, count: int, seed: int, sources: Sources) -> Samples:
    path, cache = spec.folder / name, digest_cache(sources.store)
    if path.suffix != ".py":
        identity = _contents(path, cache) if path.is_dir() else {path.name: content_digest(path, cache)}
        return Samples(path=str(path.resolve()), identity=identity)
    call = script_call(spec, name, "samples", {"count": count, "seed": seed}, replaces=sources.replaces)
    run = ScriptRun(
        module="perfgate.model.precision.data_child",
        request={"count": count, "seed": seed, "limit_bytes": LIMIT_BYTES},
        result="made",
        timeout_s=_SCRIPT_TIMEOUT_S,
        what=f"the data script {path.name}",
        fix="samples(count, seed) must yield dictionaries of arrays, one a sample",
    )
    made = make(call, run, sources.store, _Arrays(), manifests=sources.manifests, again=sources.again)
    sources.use(spec.name, made.manifest)
    place = Path(made.place).resolve()
    return Samples(path=str(place), identity=_contents(place, cache))


class _Arrays:
    """A folder of `.npy` files."""

    def identify(self, result: Path) -> str:
        return digest(_contents(result, None))

    def first_difference(self, place: Path, result: Path) -> str:
        before, after = _contents(place, None), _contents(result, None)
        return next(name for name in sorted({**before, **after}) if before.get(name) != after.get(name))


def _contents(folder: Path, cache: Path | None) -> dict[str, str]:
    return {path.name: content_digest(path, cache) for path in sorted(folder.glob("*.npy"))}
