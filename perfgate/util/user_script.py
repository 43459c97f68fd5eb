"""Loading a Python file that is not ours; only ever done in a child process."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    SourceFileLoader,
)
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from perfgate.errors import CaseError
from perfgate.util.interpreter import PACKAGE, python_folders, site_folders
from perfgate.util.observe import report_to_parent

WITNESS = "imports.json"


def load_script(path: Path, loader: SourceFileLoader | None = None) -> ModuleType:
    """The module of a Python file, with its folder first on the import path, as if it were run there.

    Raises `CaseError` for a file that is not Python, and whatever the file itself raises.
    """
    sys.dont_write_bytecode = True  # nothing of ours is left beside the user's script
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path, loader=loader)
    if spec is None or spec.loader is None:
        raise CaseError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


class ObservedScript:
    """A script that is loaded and called while the parent observes what it reads.

    Modules of `project` are found by asking for each candidate file and are never taken from byte code, so
    that what is read is the source alone. Where `replaces` is another checkout of the project (head's, while
    base's script runs), an installed package that lies there is taken from `project` instead.
    """

    def __init__(self, script: Path, *, project: str, replaces: str = "") -> None:
        self._script, self._project, self._replaces = script, project, replaces
        self._tried: set[str] = set()
        self._metadata: list[str] = []

    def load(self) -> ModuleType:
        """From here on this process is observed. Raises as `load_script` does."""
        # Ours is only there for perfgate itself, whose modules find each other without it.
        sys.path[:] = [entry for entry in sys.path if entry != str(PACKAGE.parent) or entry in site_folders()]
        given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        os.environ["PYTHONPATH"] = os.pathsep.join(given[1:] if given[0] == str(PACKAGE.parent) else given)
        sys.path_hooks.insert(0, self._project_finder)
        sys.path_importer_cache.clear()
        if self._replaces:
            sys.path[:] = [self._moved(entry) for entry in sys.path]
            sys.meta_path.insert(0, _OtherCheckout(self))
        self._list_metadata()
        sys.addaudithook(self._note_import)
        report_to_parent()
        return load_script(self._script, _SourceLoader(self._script.stem, str(self._script)))

    def write_witness(self, folder: Path) -> None:
        """What Python itself knows of its imports: the files of all modules, and the names that were not
        found."""
        files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
        text = json.dumps(
            {
                "files": sorted(str(path) for path in files if path),
                "metadata": self._metadata,
                "asked": sorted(_AskingFinder.asked),
                "absent": sorted(self._tried - {name.split(".")[0] for name in sys.modules}),
            }
        )
        (folder / WITNESS).write_text(text)

    def _list_metadata(self) -> None:
        """`importlib.metadata` lists all folders that modules come from, and keeps what it found. It does so
        here, unobserved: of the project's folders only names of distributions matter to it, and they are
        noted."""
        import importlib.metadata

        for folder in dict.fromkeys((str(self._script.parent), *sys.path)):
            if not f"{folder}/".startswith(python_folders()):
                self._metadata += [folder] if f"{folder}/".startswith(f"{self._project}/") else []
                with contextlib.suppress(AttributeError, OSError):
                    path = importlib.metadata.FastPath(folder)  # type: ignore[attr-defined]
                    path.lookup(path.mtime)

    def _note_import(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "import":
            self._tried.add(str(arguments[0]).split(".")[0])

    def _inside(self, path: str, root: str) -> bool:
        return path.startswith(root + os.sep) and not path.startswith(
            (sys.prefix + os.sep, sys.base_prefix + os.sep)
        )

    def _project_finder(self, folder: str) -> FileFinder:
        if f"{folder}/".startswith(python_folders()):
            raise ImportError(f"the interpreter's own: {folder}")
        if not os.path.isdir(folder or "."):
            raise ImportError(f"no folder, so another finder's: {folder}")  # an archive, or `runpy.run_path`
        extensions = (ExtensionFileLoader, EXTENSION_SUFFIXES)
        return _AskingFinder(folder, extensions, (_SourceLoader, [".py"]))

    def _moved(self, path: str) -> str:
        """The same place in this checkout, for a path in the one that it stands for."""
        if path == self._replaces or self._inside(path, self._replaces):
            return self._project + path[len(self._replaces) :]
        return path


class _SourceLoader(SourceFileLoader):
    """Compiles the source each time: byte code may be another source's of the same size and second."""

    def path_stats(self, path: str) -> Any:
        raise OSError(path)


class _Everything:
    def __contains__(self, name: object) -> bool:
        return True


class _AskingFinder(FileFinder):
    """Asks for each candidate file in place of listing the folder: a file that is no module changes
    nothing."""

    asked: ClassVar[set[str]] = set()

    def find_spec(self, fullname: str, target: ModuleType | None = None) -> ModuleSpec | None:
        self.asked.add(os.path.join(self.path, fullname.rpartition(".")[2]))
        return super().find_spec(fullname, target)

    def _fill_cache(self) -> None:
        self._path_cache = self._relaxed_path_cache = _Everything()


class _OtherCheckout:
    """Finds packages that are installed from the other checkout (`pip install -e`) in this one."""

    def __init__(self, script: ObservedScript) -> None:
        self._moved = script._moved

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None:
            return None  # below a package, whose own path is right already
        found = None
        for finder in sys.meta_path:
            if finder is not self and (found := finder.find_spec(name, path, target)) is not None:
                break
        if found is None:
            return None
        places = list(found.submodule_search_locations or ())
        origin, moved = found.origin or "", [self._moved(place) for place in places]
        if self._moved(origin) == origin and moved == places:
            return found
        if not os.path.isfile(self._moved(origin)) and found.has_location:
            raise ModuleNotFoundError(f"No module named {name!r} in this commit", name=name)
        if not found.has_location:
            spec = ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = moved
            return spec
        loader = _SourceLoader(name, self._moved(origin))
        return importlib.util.spec_from_file_location(
            name, self._moved(origin), loader=loader, submodule_search_locations=moved or None
        )


def load_observed(
    request: dict[str, Any], function: str, parameters: str
) -> tuple[ObservedScript, Callable[..., Any]]:
    """The script of a request, observed from here on, and the function that it must define. Ends the process
    with a message where it has none."""
    script = Path(request["script"])
    observed = ObservedScript(script, project=request["project"], replaces=request["replaces"])
    module = observed.load()
    if not hasattr(module, function):
        sys.exit(f"{script.name} defines no {function}({parameters})")
    return observed, getattr(module, function)
