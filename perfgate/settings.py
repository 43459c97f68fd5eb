"""Settings: flags over environment (`PERFGATE_*`) over `[tool.perfgate]` in `pyproject.toml`.

`Settings` is the one table of them: the options of the command line and of pytest, the names in the
environment and the manual's table are made from it. It imports the standard library alone, because pytest
asks for its options in every run.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import sys
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from perfgate.errors import UsageError

if TYPE_CHECKING:
    from perfgate.records import Protocol, Tolerance

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
_NAME: dict[str, Any] = {"min_length": 1, "max_length": 300}
_POSITIVE: dict[str, Any] = {"ge": 1, "lt": 1 << 62}
_warned: set[str] = set()


def _setting(default: Any, description: str, *, flag: str = "", shown: str = "", **limits: Any) -> Any:
    """A field of the table. `flag` is the option's name where it is another, `shown` the default in words,
    `limits` are those of `msgspec.Meta`."""
    return dataclasses.field(
        default=default,
        metadata={"description": description, "flag": flag, "shown": shown, "limits": limits},
    )


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything a user can set. Paths are relative to `root`, the folder of `pyproject.toml` or the
    working directory."""

    models: str = _setting("models", "Folder of model specs.", **_NAME)
    baselines: str = _setting("baselines", "Folder of baselines.", **_NAME)
    out: str = _setting("perfgate-out", "Folder for results and report.", **_NAME)
    store: str = _setting(".perfgate", "Folder for generated models, engines and caches.", **_NAME)
    history: str = _setting(
        ".perfgate/history.sqlite", "The history: a file, or postgresql://user:password@host/name.", **_NAME
    )
    backend: str = _setting(
        "auto", "auto, tensorrt, onnxruntime, torch, torch-compile or tensorrt-rtx.", **_NAME
    )
    device: str = _setting(
        "auto",
        "auto, cpu, or a GPU's UUID or index (behind CUDA_VISIBLE_DEVICES, else as nvidia-smi counts).",
        **_NAME,
    )
    mode: str = _setting(
        "", "Measure in this mode, such as graph+transfers or enqueue+spin.", shown="the backend's"
    )
    launches: int | None = _setting(None, "Launches a case.", shown="5", ge=1, le=1000)
    duration_ms: int | None = _setting(
        None, "Sampling time of a launch.", shown="1000 on a CPU, 500 on a GPU", **_POSITIVE
    )
    warmup_ms: int | None = _setting(None, "Warm-up time of a launch.", shown="200", ge=0)
    min_samples: int | None = _setting(
        None, "Samples that a launch takes at least.", shown="5 on a CPU, 200 on a GPU", **_POSITIVE
    )
    launch_timeout_s: int = _setting(300, "Time limit of a launch.", **_POSITIVE)
    build_timeout_s: int = _setting(3600, "Time limit of a build.", **_POSITIVE)
    lock_timeout_s: int = _setting(3600, "How long to wait for the device.", **_POSITIVE)
    engine_cache_mib: int = _setting(6144, "Size limit of the engine cache.", **_POSITIVE)
    foreign_cpu_limit: float = _setting(
        0.15, "Share of the processors that others may use during a CPU launch.", ge=0, le=1
    )
    lock_clocks_mhz: int | None = _setting(
        None, "Hold the GPU's clock at so many MHz.", flag="lock-clocks", shown="not locked", **_POSITIVE
    )
    ignore: float | None = _setting(
        None, "Slowdown to ignore, as a share.", shown="0.10 on a CPU, 0.005 on a GPU", gt=0, lt=10
    )
    catch: float | None = _setting(
        None, "Slowdown to catch, as a share.", shown="0.30 on a CPU, 0.02 on a GPU", gt=0, lt=10
    )
    base: str = _setting(
        "",
        "Compare the change with this revision; `baseline`: each case with its own.",
        shown="the change's base",
    )
    target: str = _setting(
        "", "Branch or commit that the change goes to.", shown="GITHUB_BASE_REF, else origin's default"
    )
    policy_from: str = _setting("", "Judge by this revision's policy; `base`: by base's.", shown="none")
    confirm_budget: int | str = _setting(
        32, "Launches a side, or seconds as 90s, that a suspect may take.",
        ge=1, le=1000, pattern=r"^[1-9][0-9]{0,4}s?$",
    )  # fmt: skip
    require_baseline: bool = _setting(False, "A case without a baseline fails.")
    remeasure: bool = _setting(False, "Measure unchanged cases too.")
    all_cases: bool = _setting(False, "Also cases that the spec skips here.", flag="all")
    explain: bool = _setting(True, "Profile both engines of a regression, and say why it is slower.")
    language: Literal["en", "zh-CN"] = _setting("en", "Language of reports: en or zh-CN.", flag="lang")
    root: str = "."

    def path(self, name: str) -> Path:
        """A setting that names a path, relative to `root`."""
        return Path(self.root) / str(getattr(self, name))

    def database(self, given: str | None = None) -> str:
        """The history that is given, else the setting's: a URL, or a path relative to `root`."""
        name = given or self.history
        return name if "://" in name else str(Path(self.root) / name)

    def protocol(self, kind: str) -> Protocol:
        """The measuring protocol on a `cpu` or `gpu`."""
        from perfgate.records import Protocol

        gpu = kind == "gpu"
        duration_ms = self.duration_ms or (500 if gpu else 1000)
        common: dict[str, Any] = {
            "launches": self.launches or 5,
            "duration_ns": duration_ms * 1_000_000,
            "min_samples": self.min_samples or (200 if gpu else 5),
            "timeout_s": self.launch_timeout_s,
            "foreign_cpu_limit": self.foreign_cpu_limit,
        }
        if self.warmup_ms is not None:
            common["warmup_ns"] = self.warmup_ms * 1_000_000
        return Protocol(**common, max_samples=4_000) if gpu else Protocol(**common)

    def budget(self) -> tuple[int | None, int | None]:
        """What a confirmation may take: launches a side, or seconds (as `90s`); the other is None."""
        text = str(self.confirm_budget)
        return (None, int(text[:-1])) if text.endswith("s") else (int(text), None)

    def tolerance(self, kind: str) -> Tolerance:
        """The default tolerance on a `cpu` or `gpu`; a model's own goes over it.

        Free clocks and one tenant on a GPU; neighbours on the same cores of a CPU. Checked against launches.
        """
        from perfgate.records import Tolerance

        ignore, catch = (0.005, 0.02) if kind == "gpu" else (0.10, 0.30)
        own = Tolerance(ignore=self.ignore or ignore, catch=self.catch or catch)
        if own.ignore >= own.catch:
            raise UsageError(
                f"ignore ({own.ignore:g}) is not below catch ({own.catch:g})",
                where="settings",
                fix="what is to be ignored must be smaller than what is to be caught: set both",
            )
        return own


class Option(typing.NamedTuple):
    """A setting as an option. `flag` has no dashes before it; `choices` are all values, where they are few;
    `default` is in words, and empty for a flag that is off."""

    name: str
    flag: str
    kind: type
    choices: tuple[str, ...]
    description: str
    default: str


@functools.cache
def options() -> dict[str, Option]:
    """Every setting by name, as an option."""
    hints = typing.get_type_hints(Settings)
    found = {}
    for field in dataclasses.fields(Settings):
        if not field.metadata:
            continue
        kinds, choices = _kinds(hints[field.name])
        found[field.name] = Option(
            name=field.name,
            flag=field.metadata["flag"] or field.name.replace("_", "-"),
            kind=kinds[-1],
            choices=choices,
            description=field.metadata["description"],
            default=field.metadata["shown"] or _in_words(field.default),
        )
    return found


def _in_words(default: Any) -> str:
    if isinstance(default, bool):
        return "true" if default else ""
    return str(default)


def _kinds(hint: Any) -> tuple[tuple[type, ...], tuple[str, ...]]:
    """The types that a field takes, and its values where they are listed."""
    if typing.get_origin(hint) is Literal:
        return (str,), typing.get_args(hint)
    return tuple(kind for kind in typing.get_args(hint) or (hint,) if kind is not type(None)), ()


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"{_PREFIX}{name.upper()}"


def table() -> str:
    """The manual's table of all settings, in Markdown."""
    rows = [
        f"| `{name}` | {option.default or 'false'} | {option.description} |"
        for name, option in options().items()
    ]
    return "\n".join(("| setting | default | meaning |", "|---|---|---|", *rows))


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
    from_environment = {name: environ[variable(name)] for name in options() if variable(name) in environ}
    settings = _layer(settings, from_environment, where="environment", strict=False)
    given = {name: value for name, value in flags.items() if value is not None}
    return Settings(**_layer(settings, given, where="flags", strict=True))


def mistyped(environ: Mapping[str, str]) -> dict[str, str]:
    """What to say of each `PERFGATE_*` variable that nothing reads and that is nearly one that is read."""
    import difflib

    known = [*map(str.upper, options()), *_VARIABLES, *_FAMILIES]
    found = {}
    for name in sorted(environ):
        short = name.removeprefix(_PREFIX)
        if short == name or short in known or short.startswith(_FAMILIES):
            continue
        if close := difflib.get_close_matches(short.upper(), known, n=1, cutoff=_NEAR):
            found[name] = f"environment: {name}: unknown; did you mean {_PREFIX}{close[0]}?"
    return found


@functools.cache
def _record() -> Any:
    """A record of all settings with their limits, to read each source strictly."""
    import msgspec

    hints = typing.get_type_hints(Settings)
    fields: list[Any] = []
    for field in dataclasses.fields(Settings):
        limits = dict(field.metadata.get("limits", {}))
        text = {key: limits.pop(key) for key in ("pattern", "min_length", "max_length") if key in limits}
        hint = hints[field.name]
        for kind in _kinds(hint)[0]:
            if own := text if kind is str else limits:
                hint = _with_limits(hint, kind, msgspec.Meta(**own))
        fields.append((field.name, hint, field.default))
    return msgspec.defstruct("Settings", fields, forbid_unknown_fields=True)


def _with_limits(hint: Any, kind: type, meta: Any) -> Any:
    """The type with these limits on one of its kinds."""
    kinds = [typing.Annotated[one, meta] if one is kind else one for one in typing.get_args(hint) or (hint,)]
    return typing.Union[tuple(kinds)]  # noqa: UP007 - made of a tuple


def _layer(under: dict[str, Any], over: Mapping[str, Any], *, where: str, strict: bool) -> dict[str, Any]:
    import msgspec

    if "root" in over:
        raise UsageError("unknown key `root`", where=where, fix="it is the folder of pyproject.toml")
    try:
        layer = msgspec.convert(dict(over), _record(), strict=strict)
    except msgspec.ValidationError as error:
        raise _invalid(str(error), where) from error
    return under | {name: getattr(layer, name) for name in over}


def _invalid(text: str, where: str) -> UsageError:
    """A setting that does not fit; for a name that is none, the one that was probably meant."""
    import difflib

    unknown = re.search(r"unknown field `(.*)`", text)
    if unknown is None:
        return UsageError(text, where=where, fix="see README, Settings")
    close = difflib.get_close_matches(unknown[1], options(), n=1)
    fix = f"did you mean {close[0]!r}?" if close else "remove it, or see README, Settings"
    return UsageError("unknown key", where=f"{where}: {unknown[1]}", fix=fix)


def _project_table(start: Path) -> tuple[Path, dict[str, Any]]:
    """The nearest `pyproject.toml` at or above `start` that has a `[tool.perfgate]`, or `start` itself."""
    for folder in (start, *start.parents):
        path = folder / "pyproject.toml"
        if path.is_file() and (table := _table_of(path)) is not None:
            return folder, table
    return start, {}


def _table_of(path: Path) -> dict[str, Any] | None:
    from perfgate.util.files import TEXT_LIMIT_BYTES, parse_toml, read_bytes, toml_fix

    try:
        project = parse_toml(read_bytes(path, limit_bytes=TEXT_LIMIT_BYTES))
    except (ValueError, RecursionError) as error:  # a number of 5000 digits is a plain ValueError
        raise UsageError(f"is not valid TOML: {error}", where=path, fix=toml_fix(error)) from error
    tool = project.get("tool")
    table = tool.get("perfgate") if isinstance(tool, dict) else None
    if table is not None and not isinstance(table, dict):
        raise UsageError("is not a table", where=f"{path}: tool.perfgate", fix="[tool.perfgate]")
    return table
