"""Settings: flags over environment (`PERFGATE_*`) over `[tool.perfgate]` in `pyproject.toml`."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from perfgate.errors import UsageError
from perfgate.records import Name, Positive, Protocol, Record, Share, Tolerance
from perfgate.util.files import TEXT_LIMIT_BYTES, read_bytes, toml_fix

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Free clocks and one tenant on a GPU; neighbours on the same cores of a CPU. Checked against launches.
_TOLERANCES = {"gpu": Tolerance(ignore=0.005, catch=0.02), "cpu": Tolerance(ignore=0.10, catch=0.30)}
_PROTOCOLS = {
    "gpu": Protocol(launches=5, duration_ns=500_000_000, min_samples=200, max_samples=4_000),
    "cpu": Protocol(launches=5, duration_ns=1_000_000_000, min_samples=5),
}
_PREFIX = "PERFGATE_"
# Variables that are no settings: perfgate's own, and those of its workflows and actions.
_VARIABLES = (
    "ANCHOR",
    "APP_ID",
    "APP_KEY",
    "ENGINES",
    "IMAGE",
    "IMAGE_DIGEST",
    "LEGS",
    "LOCK_DIR",
    "PAGES",
    "PARENT_PID",
    "PUSHGATEWAY",
    "REGISTRY",
)
# Any name may follow these.
_FAMILIES = ("WEBHOOK_",)
_NEAR = 0.8
_warned: set[str] = set()


class Settings(Record):
    """Everything a user can set. Paths are relative to `root`, the folder of `pyproject.toml` or the
    working directory."""

    models: Name = "models"
    baselines: Name = "baselines"
    out: Name = "perfgate-out"
    store: Name = ".perfgate"
    history: Name = ".perfgate/history.sqlite"
    backend: Name = "auto"
    device: Name = "auto"
    mode: str = ""
    launches: Annotated[int, Meta(ge=1, le=1000)] | None = None
    duration_ms: Positive | None = None
    warmup_ms: Annotated[int, Meta(ge=0)] | None = None
    min_samples: Positive | None = None
    launch_timeout_s: Positive = 300
    build_timeout_s: Positive = 3600
    lock_timeout_s: Positive = 3600
    engine_cache_mib: Positive = 6144
    foreign_cpu_limit: Share = 0.15
    lock_clocks_mhz: Positive | None = None
    ignore: Annotated[float, Meta(gt=0, lt=10)] | None = None
    catch: Annotated[float, Meta(gt=0, lt=10)] | None = None
    base: str = ""
    policy_from: str = ""
    confirm_budget: (
        Annotated[int, Meta(ge=1, le=1000)] | Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,4}s?$")]
    ) = 32
    require_baseline: bool = False
    remeasure: bool = False
    all_cases: bool = False
    explain: bool = True
    language: Literal["en", "zh-CN"] = "en"
    root: str = "."

    def path(self, name: str) -> Path:
        """A setting that names a path, relative to `root`."""
        return Path(self.root) / str(getattr(self, name))

    def database(self, asked: str | None = None) -> str:
        """The history that is asked for, else the setting's: a URL, or a path relative to `root`."""
        name = asked or self.history
        return name if "://" in name else str(Path(self.root) / name)

    def protocol(self, kind: str) -> Protocol:
        """The measuring protocol on a `cpu` or `gpu`."""
        default = _PROTOCOLS[kind]
        return msgspec.structs.replace(
            default,
            launches=self.launches or default.launches,
            duration_ns=default.duration_ns if self.duration_ms is None else self.duration_ms * 1_000_000,
            warmup_ns=default.warmup_ns if self.warmup_ms is None else self.warmup_ms * 1_000_000,
            min_samples=self.min_samples or default.min_samples,
            timeout_s=self.launch_timeout_s,
            foreign_cpu_limit=self.foreign_cpu_limit,
        )

    def budget(self) -> tuple[int | None, int | None]:
        """What a confirmation may take: launches a side, or seconds (as `90s`); the other is None."""
        text = str(self.confirm_budget)
        return (None, int(text[:-1])) if text.endswith("s") else (int(text), None)

    def tolerance(self, kind: str) -> Tolerance:
        """The default tolerance on a `cpu` or `gpu`; a model's own goes over it."""
        default = _TOLERANCES[kind]
        own = Tolerance(ignore=self.ignore or default.ignore, catch=self.catch or default.catch)
        if own.ignore >= own.catch:
            raise UsageError(
                f"ignore ({own.ignore:g}) is not below catch ({own.catch:g})",
                where="settings",
                fix="what is to be ignored must be smaller than what is to be caught: set both",
            )
        return own


def load_settings(
    flags: Mapping[str, Any], *, start: Path, environ: Mapping[str, str] = os.environ
) -> Settings:
    """Join the three sources. `flags` that are None were not given.

    Raises `UsageError` that names the source and key of a value that does not fit. A variable that is
    probably a mistyped one is warned of, once a process: it may belong to somebody else.
    """
    for name, text in mistyped(environ).items():
        if name not in _warned:
            _warned.add(name)
            print(f"perfgate: warning: {text}", file=sys.stderr)
    root, table = _project_table(start)
    settings = _layer(
        {"root": str(root)}, table, where=f"{root / 'pyproject.toml'}: tool.perfgate", strict=True
    )
    known = set(Settings.__struct_fields__) - {"root"}
    from_environment = {
        name: environ[f"PERFGATE_{name.upper()}"] for name in known if f"PERFGATE_{name.upper()}" in environ
    }
    settings = _layer(settings, from_environment, where="environment", strict=False)
    given = {name: value for name, value in flags.items() if value is not None}
    return msgspec.convert(_layer(settings, given, where="flags", strict=True), Settings)


def mistyped(environ: Mapping[str, str]) -> dict[str, str]:
    """What to say of each `PERFGATE_*` variable that nothing reads and that is nearly one that is read."""
    import difflib

    settings = (name.upper() for name in Settings.__struct_fields__ if name != "root")
    known = [*settings, *_VARIABLES, *_FAMILIES]
    said = {}
    for variable in sorted(environ):
        name = variable.removeprefix(_PREFIX)
        if name == variable or name in known or name.startswith(_FAMILIES):
            continue
        if close := difflib.get_close_matches(name.upper(), known, n=1, cutoff=_NEAR):
            said[variable] = f"environment: {variable}: unknown; did you mean {_PREFIX}{close[0]}?"
    return said


def _layer(under: dict[str, Any], over: Mapping[str, Any], *, where: str, strict: bool) -> dict[str, Any]:
    if "root" in over:
        raise UsageError("unknown key `root`", where=where, fix="it is the folder of pyproject.toml")
    try:
        layer = msgspec.convert(dict(over), Settings, strict=strict)
    except msgspec.ValidationError as error:
        raise _unfit(str(error), where) from error
    return under | {name: getattr(layer, name) for name in over}


def _unfit(said: str, where: str) -> UsageError:
    """A setting that does not fit; for a name that is none, the one that was probably meant."""
    import difflib

    unknown = re.search(r"unknown field `(.*)`", said)
    if unknown is None:
        return UsageError(said, where=where, fix="see README, Settings")
    close = difflib.get_close_matches(unknown[1], set(Settings.__struct_fields__) - {"root"}, n=1)
    fix = f"did you mean {close[0]!r}?" if close else "remove it, or see README, Settings"
    return UsageError("unknown key", where=f"{where}: {unknown[1]}", fix=fix)


def _project_table(start: Path) -> tuple[Path, dict[str, Any]]:
    """The nearest `pyproject.toml` at or above `start` that has a `[tool.perfgate]`, or `start` itself."""
    for folder in (start, *start.parents):
        path = folder / "pyproject.toml"
        if path.is_file():
            try:
                project = tomllib.loads(read_bytes(path, limit_bytes=TEXT_LIMIT_BYTES).decode())
            except (ValueError, RecursionError) as error:  # a number of 5000 digits is a plain ValueError
                fix = toml_fix(error)
                raise UsageError(f"is not valid TOML: {error}", where=path, fix=fix) from error
            tool = project.get("tool")
            table = tool.get("perfgate") if isinstance(tool, dict) else None
            if table is not None and not isinstance(table, dict):
                raise UsageError("is not a table", where=f"{path}: tool.perfgate", fix="[tool.perfgate]")
            if table is not None:
                return folder, table
    return start, {}
