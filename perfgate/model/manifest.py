"""From what was seen while a script ran to a manifest, and from a manifest to whether it still holds."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import stat
import sys
import sysconfig
from collections.abc import Mapping
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Literal

import msgspec

from perfgate.errors import CaseError
from perfgate.model.content import content_digest
from perfgate.model.distributions import identity, owner
from perfgate.records import Manifest, OpenReason, Record, Text, digest
from perfgate.records.manifest import LONGEST
from perfgate.util.interpreter import PACKAGE, own_site_folders, site_folders
from perfgate.util.observe import Observation, Seen, signature
from perfgate.util.user_script import WITNESS

Call = Literal["write_onnx", "torch_module", "samples", "score"]
_ABSENT, _FOLDER, _SITE, _MODULE, _METADATA = "absent", "folder", "{site}", "{module}", "/{metadata}"
_DISTRIBUTION = (".dist-info", ".egg-info", ".egg-link")
_SUFFIXES = (*EXTENSION_SUFFIXES, ".py")
# Left by tools in any folder, and never a reason to generate a model again.
_LEFTOVERS = ("__pycache__", ".perfgate", "perfgate-out", ".pytest_cache")
# What the operating system's packages own, and what is no file at all: the platform counts for them.
_SYSTEM = re.compile(
    r"/(proc|sys|dev(?!/shm/.)|s?bin|lib(32|64|x32)?)(/|$)|/usr/(s?bin|lib(32|64|x32)?|libexec|share)(/|$)"
    r"|/\.dockerenv$|/run/\.containerenv$|/(usr/local|opt)/.*\.so(\.[0-9]+)*$"
    r"|/etc/(ld\.so\.|localtime|timezone|passwd|group|nsswitch|hosts|host\.conf|resolv\.conf|ssl/|os-release|mime)"
)
# A place under a process's folders: it may be any other.
_BY_PROCESS = re.compile(r"/proc/[^/]+/(task/[^/]+/)?(cwd|root)/.")
# Of a Python that is not the system's: its programs and libraries. Data that lie beside them are outside.
_OF_PYTHON = ("bin", "lib", "lib64", "include", "pyvenv.cfg")


class ScriptCall(Record, kw_only=True):
    """One call of a function of the user's. `project` is the root of its repository; `replaces` is the other
    checkout of it where this one is base's; `environment` names the variables that it gets beside the usual
    ones; `reads` are paths that count though nothing was seen to read them (relative to `project`)."""

    script: Text
    project: Text
    call: Call
    arguments: dict[str, int | float | str | bool] = {}
    environment: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    replaces: Text = ""

    @property
    def name(self) -> str:
        """The script's path in its project."""
        return os.path.relpath(self.script, self.project)

    @property
    def key(self) -> str:
        """What is called, whatever it reads: the same for both sides of a change."""
        return digest([self.name, self.call, self.arguments])


def project_of(folder: Path) -> Path:
    """The root of the repository around a folder; without one the nearest `pyproject.toml`'s folder, else
    it."""
    folder = folder.resolve()
    for mark in (".git", "pyproject.toml"):
        for place in (folder, *folder.parents):
            if (place / mark).exists():
                return place
    return folder


def other_checkout(own: Path, place: Path) -> str:
    """The project of the tree under test, for a place in another checkout of it; empty for one in the
    same."""
    return "" if project_of(own) == project_of(place) else str(project_of(own))


def make_manifest(
    call: ScriptCall,
    seen: Observation,
    variables: Mapping[str, str],
    *,
    room: Path,
    made: str,
    cache: Path | None,
) -> Manifest:
    """The manifest of a call that ended well. `room` is its own temporary folder, where its list of imports
    lies; what it wrote and read there does not count. `cache` keeps the digests of large files."""
    reader = _Reader(call, seen, (str(room), str(room.resolve())), cache)
    reader.read(room)
    return Manifest(
        key=call.key,
        script=call.name,
        call=call.call,
        reads=dict(sorted(reader.reads.items())),
        packages=dict(sorted(reader.packages.items())),
        variables=variable_digests(call.project, variables),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        platform=_platform(),
        made=made,
        open=tuple(reader.reasons.values()),
    )


def difference(manifest: Manifest, call: ScriptCall, variables: Mapping[str, str], cache: Path | None) -> str:
    """The first thing in a manifest that is another today, as a path or a name; empty where all is the
    same."""
    if manifest.python != f"{platform.python_implementation()} {platform.python_version()}":
        return "Python"
    if manifest.platform != _platform():
        return "the platform"
    today = variable_digests(call.project, variables)
    for name in sorted(manifest.variables.keys() | today.keys()):
        if manifest.variables.get(name) != today.get(name):
            return f"the variable {name}"
    for name, version in manifest.packages.items():
        if identity(name) != version:
            return name
    declared = _declared(call)
    for path in declared:
        if path not in manifest.reads:
            return path
    for path, value in manifest.reads.items():
        if _value(_absolute(path, call.project), value, call.project, cache) != value:
            return path
    return ""


def variable_digests(project: str, variables: Mapping[str, str]) -> dict[str, str]:
    """The variables of a script by the digest of their values, which may be secret. Places are named by what
    they are, so that another checkout or another folder of the same Python has the same."""
    places = ((str(PACKAGE.parent), "{perfgate}"), (project, "{project}"), (sys.prefix, "{python}"))
    found = {}
    for name, text in variables.items():
        for place, word in places:
            text = re.sub(rf"(?<![^:]){re.escape(place)}(?=[:/]|$)", word, text)
        found[name] = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]
    return dict(sorted(found.items()))


class _Reader:
    """Sorts the paths that were seen: the project's own by content, installed packages by version, the rest
    as reasons why the manifest is open."""

    def __init__(
        self, call: ScriptCall, seen: Observation, rooms: tuple[str, ...], cache: Path | None
    ) -> None:
        self._call, self._seen, self._cache = call, seen, cache
        self._rooms = tuple(room + os.sep for room in rooms)
        near = [*Path(call.project).parents, *Path(rooms[1]).parents, Path(sys.prefix), Path(PACKAGE)]
        self._above = {str(place) for path in near for place in (path, *path.parents)}
        self.reads: dict[str, str] = {}
        self.packages: dict[str, str] = {}
        self.reasons: dict[str, OpenReason] = {}

    def read(self, room: Path) -> None:
        for peer in self._seen.network:
            self._open("network", peer)
        if self._seen.fault:
            self._open("unobserved", self._seen.fault)
        paths = dict(self._seen.paths)
        try:
            witness = json.loads((room / WITNESS).read_text())
        except (OSError, ValueError):
            self._open("unobserved", "the script did not end as Python programs do")
            witness = {"files": [], "absent": [], "asked": [], "metadata": []}
        for path in witness["files"]:
            if path not in paths:  # loaded before the observation began
                paths[path] = Seen(signature=signature(path), opened=True)
        for name in witness["absent"]:
            if name not in sys.stdlib_module_names and identity(name) == _ABSENT:
                self.packages[name] = _ABSENT
        asked = {path for path in witness["asked"] if not self._in_room(path)}
        for folder in witness["metadata"]:
            if not self._in_room(folder):
                name = os.path.relpath(folder, self._call.project) + _METADATA
                self._keep(name, _listing(folder, _DISTRIBUTION))
        for path in asked:
            self._keep(_relative(path, self._call.project) + _MODULE, _module(path))
        for path, found in paths.items():
            if found.signature is not None or _stem(path) not in asked:
                self._sort(path, found)
        self.reads |= {path: _declared_value(path, self._call, self._cache) for path in _declared(self._call)}
        if len(self.reads) > LONGEST:
            self.reads = {}
            self._open("large", str(LONGEST))

    def _open(self, code: str, value: str) -> None:
        # One of a kind tells enough; the first is the earliest.
        if code not in self.reasons:
            reason = {"code": code, "value": value.encode(errors="backslashreplace").decode()[:1000]}
            self.reasons[code] = msgspec.convert(reason, OpenReason)

    def _in_room(self, path: str) -> bool:
        return f"{path}/".startswith(self._rooms)

    def _sort(self, path: str, seen: Seen) -> None:
        if self._in_room(path):
            if os.path.islink(path) and (target := os.path.realpath(path)) != path:
                self._sort(target, Seen(signature=signature(target), opened=seen.opened))
            return
        if place := next((place for place in site_folders() if path.startswith(place + os.sep)), ""):
            self._installed(path, place, seen)
        elif path in (*site_folders(), str(PACKAGE)) or _of_python(path) or path.startswith(f"{PACKAGE}/"):
            return
        elif path == self._call.project or path.startswith(self._call.project + os.sep):
            self._in_project(path, seen)
        elif _BY_PROCESS.match(path):
            self._open("special", path)
        elif not _SYSTEM.match(path):
            self._outside(path, seen)

    def _installed(self, path: str, place: str, seen: Seen) -> None:
        top = path[len(place) + 1 :].split(os.sep)[0]
        link = os.path.join(place, top)
        if os.path.islink(link):  # installed as a link to its sources
            target = os.path.realpath(link) + path[len(link) :]
            self._sort(target, Seen(signature=signature(target), opened=seen.opened))
        elif name := owner(top):
            if not (known := identity(name)).endswith(" editable"):
                self.packages[name] = known
        elif place not in own_site_folders():
            self._outside(path, seen)
        elif os.path.isfile(path):
            # No distribution says whose it is: a file that was put there by hand.
            self.reads[f"{_SITE}/{path[len(place) + 1 :]}"] = _file_value(path, self._cache)

    def _in_project(self, path: str, seen: Seen) -> None:
        if seen.made or "/__pycache__/" in path:
            return
        wanted = "listing" if seen.opened and seen.folder else ""
        before = self._signature_now(path, seen)
        value = _value(path, wanted, self._call.project, self._cache)
        if value in ("outside", "special"):
            self._open(value, path)
        elif before is False or self._signature_now(path, seen) is False:
            self._open("changed", os.path.relpath(path, self._call.project))
        else:
            self._keep(os.path.relpath(path, self._call.project), value)

    def _signature_now(self, path: str, seen: Seen) -> bool:
        """Whether a path is what it was when the script first asked for it."""
        with contextlib.suppress(OSError):
            now = signature(path)
            if seen.folder and not seen.opened:
                return now is not None and stat.S_ISDIR(now[2])
            return now == seen.signature
        return False

    def _keep(self, path: str, value: str) -> None:
        try:
            path.encode()
        except UnicodeEncodeError:
            self._open("special", path)
        else:
            self.reads[path] = value

    def _outside(self, path: str, seen: Seen) -> None:
        if seen.folder and (path == str(PACKAGE.parent) or (not seen.opened and path in self._above)):
            return
        if seen.signature is None and not seen.made:
            self._keep(path, _ABSENT)
        elif seen.folder and not seen.opened:
            self._keep(path, _FOLDER)
        elif not seen.made:
            if self._call.replaces and path.startswith(self._call.replaces + os.sep) and not seen.folder:
                raise CaseError(
                    f"{self._call.name} of the base commit reads {path} of the tree under test",
                    fix="let the script find its files by its own place: Path(__file__).parent",
                )
            self._open("outside", path)


def _of_python(path: str) -> bool:
    """Whether a path is the interpreter's own: its standard library, programs and shared libraries."""
    folders = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
    if path.startswith(tuple(folder + os.sep for folder in folders)) or path in folders:
        return True
    for prefix in {sys.prefix, sys.base_prefix} - {"/usr", "/usr/local", "/"}:
        if path == prefix or path.startswith(prefix + os.sep):
            return path[len(prefix) + 1 :].split(os.sep)[0] in ("", *_OF_PYTHON)
    return path.startswith(f"/usr/local/lib/python{sys.version_info[0]}.")


def _value(path: str, like: str, project: str, cache: Path | None) -> str:
    """What a path of the project, or an absent one, counts as; a folder by its names where `like` is a
    listing. `outside` for a link that leaves the project, `special` for what is no file and no folder."""
    if path.endswith(_METADATA):
        return _listing(path.removesuffix(_METADATA), _DISTRIBUTION)
    if path.endswith(_MODULE):
        return _module(path.removesuffix(_MODULE))
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return _ABSENT
    except OSError:
        return "special"
    real = os.path.realpath(path)
    if path.startswith(project) and not (
        real == project or real.startswith(os.path.realpath(project) + os.sep)
    ):
        return "outside"
    if stat.S_ISDIR(found.st_mode):
        return _listing(path) if like.startswith("listing") else _FOLDER
    return _file_value(path, cache) if stat.S_ISREG(found.st_mode) else "special"


def _module(path: str) -> str:
    """Which file an import of the module at a path without suffix would take; as `FileFinder.find_spec`
    looks."""
    name = os.path.basename(path)
    for place in (f"{name}/__init__", name):
        for suffix in _SUFFIXES:
            if os.path.isfile(os.path.join(os.path.dirname(path), place + suffix)):
                return f"module:{place}{suffix}"
    return f"module:{name}/" if os.path.isdir(path) else _ABSENT


def _stem(path: str) -> str:
    """The path without suffix of the module that a candidate would be of."""
    for suffix in _SUFFIXES:
        path = path.removesuffix(suffix)
    return path.removesuffix("/__init__")


def _file_value(path: str, cache: Path | None) -> str:
    """A file by its content, and whether its owner may execute it: git keeps both."""
    try:
        mark = "x:" if os.stat(path).st_mode & stat.S_IXUSR else ""
        return f"sha256:{mark}{content_digest(Path(path), cache)}"
    except OSError:
        return "special"


def _listing(folder: str, suffix: tuple[str, ...] = ("",)) -> str:
    """The digest of the names in a folder that end so."""
    if not os.path.isdir(folder):
        return _ABSENT
    with os.scandir(folder) as entries:
        names = sorted(
            (entry.name, entry.is_dir(), entry.is_symlink())
            for entry in entries
            if entry.name not in _LEFTOVERS and entry.name.endswith(suffix)
        )
    return f"listing:{digest([[os.fsencode(name).hex(), *kind] for name, *kind in names])}"


def _declared(call: ScriptCall) -> list[str]:
    """The files that the spec declares to be read, those below its folders included."""
    found = []
    for name in call.reads:
        place = Path(call.project, name)
        inside = place.rglob("*") if place.is_dir() else [place]
        found += [os.path.relpath(path, call.project) for path in inside if not path.is_dir()]
    return sorted(path for path in found if not set(Path(path).parts) & set(_LEFTOVERS))


def _declared_value(path: str, call: ScriptCall, cache: Path | None) -> str:
    return _value(_absolute(path, call.project), "", call.project, cache)


def _relative(path: str, project: str) -> str:
    """A path of the project relative to it; any other as it is."""
    return os.path.relpath(path, project) if f"{path}/".startswith(f"{project}/") else path


def _absolute(path: str, project: str) -> str:
    if path.startswith(_SITE + "/"):
        return os.path.join(sysconfig.get_path("purelib"), path[len(_SITE) + 1 :])
    return os.path.join(project, path)


def _platform() -> str:
    system = {}
    with contextlib.suppress(OSError):
        system = platform.freedesktop_os_release()
    release = " ".join(system[key] for key in ("ID", "VERSION_ID") if key in system)
    return f"{platform.system()} {platform.machine()} {release}".strip()
