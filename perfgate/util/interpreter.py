"""What runs perfgate's child processes: this interpreter, another one, or one in a container image."""

from __future__ import annotations

import contextlib
import functools
import os
import site
import subprocess
import sys
import sysconfig
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from perfgate.records import Record

PACKAGE = Path(__file__).resolve().parents[1]
_STOP_S = 30
_CONTAINER_PACKAGE = "/perfgate-package"


@functools.cache
def site_folders() -> tuple[str, ...]:
    """Where this interpreter's distributions are installed, links resolved or not. Folders that
    `pip install --target` made and `PYTHONPATH` names are such too, unless they lie in a repository: then
    their files are the repository's own."""
    return own_site_folders() + _resolved(path for path in sys.path if _is_target_folder(Path(path)))


@functools.cache
def own_site_folders() -> tuple[str, ...]:
    """The site folders of the interpreter itself, links resolved or not."""
    return _resolved([sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()])


def _resolved(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(found for path in paths for found in (path, str(Path(path).resolve()))))


def _is_target_folder(path: Path) -> bool:
    return (
        path.is_absolute()
        and str(path) not in own_site_folders()
        and next(path.glob("*.dist-info"), None) is not None
        and not any((folder / ".git").exists() for folder in (path, *path.parents))
    )


@functools.cache
def python_folders() -> tuple[str, ...]:
    """Where this interpreter's modules are, with a slash behind each: an import asks for thousands of paths
    there, none of which counts by its content."""
    archive = f"{sys.base_prefix}/{sys.platlibdir}/python{sys.version_info[0]}{sys.version_info[1]}.zip"
    folders = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), archive, *site_folders()]
    return tuple(f"{folder}/" for folder in dict.fromkeys(folders))


class Interpreter(Record):
    """`python` is the program; in an `image` it is one of the container's own. `package` is a folder that
    holds perfgate and nothing else, so that the other side brings its own libraries. A container sees
    `writable` and `readable` folders at the same paths. `variables` are added to its environment."""

    python: str = sys.executable
    image: str = ""
    package: str = ""
    writable: tuple[str, ...] = ()
    readable: tuple[str, ...] = ()
    gpus: bool = False
    variables: dict[str, str] = {}

    def environment(self) -> dict[str, str]:
        """Ours; for another interpreter without our way of finding modules."""
        path = os.environ.get("PYTHONPATH")
        if not self.package:
            root = str(PACKAGE.parent)
            ours = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root}
            return {**ours, **self.variables}
        kept = {key: text for key, text in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
        return {**kept, "PYTHONPATH": self.package, **self.variables}

    @contextlib.contextmanager
    def argv(self, module: str, folder: Path) -> Iterator[list[str]]:
        """The argument list that runs a module with `folder` as its room. A container that outlives its
        command line is removed."""
        if not self.image:
            yield [self.python, "-m", module]
            return
        name = f"perfgate-{uuid.uuid4().hex}"
        try:
            yield [*self._docker(name, folder), self.image, self.python, "-m", module]
        finally:
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                # After a timeout or Ctrl-C: killing the command line leaves the container running.
                subprocess.run(
                    ["docker", "rm", "--force", name],  # noqa: S607
                    capture_output=True,
                    timeout=_STOP_S,
                    check=False,
                )

    def _docker(self, name: str, folder: Path) -> list[str]:
        words = ["docker", "run", "--rm", "--init", "--name", name, "--network", "none"]
        words += ["--user", f"{os.getuid()}:{os.getgid()}"]
        words += ["--gpus", "all"] if self.gpus else []
        for path in dict.fromkeys((str(folder), *self.writable)):
            words += ["--volume", f"{path}:{path}"]
        for path in dict.fromkeys(self.readable):
            words += ["--volume", f"{path}:{path}:ro"]
        words += ["--volume", f"{PACKAGE}:{_CONTAINER_PACKAGE}/perfgate:ro"]
        variables = {**self.variables, "PYTHONPATH": _CONTAINER_PACKAGE, "HOME": str(folder)}
        for key, text in sorted(variables.items()):
            words += ["--env", f"{key}={text}"]
        return [*words, "--entrypoint", "", "--workdir", str(folder)]


HERE = Interpreter()


@contextlib.contextmanager
def another_python(python: str) -> Iterator[Interpreter]:
    """Another interpreter of this machine, with this very perfgate and its own libraries."""
    with tempfile.TemporaryDirectory(prefix="perfgate-package-") as name:
        (Path(name) / "perfgate").symlink_to(PACKAGE, target_is_directory=True)
        yield Interpreter(python=python, package=name)
