"""The ways in which a model changes while its script does not: none may be taken for unchanged.

Each row is a script that reads something, and a change of that. Afterwards nothing that was known of the
script may stand for its model: what it read is another, or what it reads could not be known (an open
manifest).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from onnx_files import BATCH, spec_text, write

from perfgate.model import distributions
from perfgate.model.onnx_file import export_onnx, known_manifest
from perfgate.model.read import read_spec
from perfgate.model.sources import Sources
from perfgate.model.spec import ModelSpec
from perfgate.records import Manifest
from perfgate.util.interpreter import python_folders, site_folders

HEAD = "import os, shutil, sys\nfrom pathlib import Path\nHERE = Path(__file__).parent\n"
ROOT = Path(__file__).resolve().parents[2]


class Project(NamedTuple):
    """A repository with one model in `models/`; `outside` is a folder beside it."""

    root: Path
    outside: Path

    @property
    def models(self) -> Path:
        return self.root / "models"

    def spec(self, body: str, source: str = "") -> ModelSpec:
        lines = "".join(f"    {line}\n" for line in body.splitlines())
        script = f"{HEAD}def write_onnx(path, seed):\n{lines}    shutil.copy(HERE / 'made.onnx', path)\n"
        (self.models / "net.py").write_text(script)
        (self.models / "net.toml").write_text(spec_text(f'script = "net.py"\n{source}', BATCH))
        return read_spec(self.models / "net.toml")

    def manifest(self, body: str, source: str = "") -> Manifest:
        found = export_onnx(self.spec(body, source), Sources(self.root / ".perfgate")).manifest
        assert found is not None
        return found

    def holds(self, manifest: Manifest) -> bool:
        """Whether a baseline's manifest, and nothing else, says that the model is unchanged."""
        spec = read_spec(self.models / "net.toml")
        return known_manifest(spec, Sources(self.root / "elsewhere", [manifest])) is not None


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path / "repository", tmp_path / "outside")
    for folder in (made.root / ".git", made.models, made.outside):
        folder.mkdir(parents=True)
    write(made.models / "made.onnx")
    (made.models / "data.txt").write_text("one")
    (made.root / "shared.txt").write_text("one")
    (made.outside / "data.txt").write_text("one")
    (made.models / "link.txt").symlink_to(made.outside / "data.txt")
    (made.models / "near.txt").symlink_to(made.models / "data.txt")
    _pack(made.models / "modules.zip", "LAYERS = 1")
    (made.models / "parts").mkdir()
    (made.models / "parts/a.txt").write_text("one")
    np.savez(made.models / "weights.npz", w=np.zeros(4))
    return made


def edit(name: str) -> Callable[[Project], object]:
    return lambda project: (project.root / name).write_text("another")


OPEN = "open(HERE / 'data.txt').read()"
CHANGES: dict[str, tuple[str, Callable[[Project], object]]] = {
    "open": (OPEN, edit("models/data.txt")),
    "numpy.load": (
        "import numpy\nnumpy.load(HERE / 'weights.npz')['w']",
        lambda project: np.savez(project.models / "weights.npz", w=np.ones(4)),
    ),
    "mmap": (
        "import mmap\nmmap.mmap(os.open(HERE / 'data.txt', os.O_RDONLY), 0, prot=mmap.PROT_READ)[:]",
        edit("models/data.txt"),
    ),
    "a C reader": (
        "import ctypes\nctypes.CDLL(None).fopen(bytes(HERE / 'data.txt'), b'r')",
        edit("models/data.txt"),
    ),
    "ONNX Runtime's reader": (
        "import onnxruntime\n"
        "onnxruntime.InferenceSession(str(HERE / 'made.onnx'), providers=['CPUExecutionProvider'])",
        lambda project: write(project.models / "made.onnx", _another()),
    ),
    "sqlite3": (
        "import sqlite3\nsqlite3.connect(f'file:{HERE}/data.txt?mode=ro', uri=True).close()",
        edit("models/data.txt"),
    ),
    "a folder's descriptor": (
        "os.open('data.txt', os.O_RDONLY, dir_fd=os.open(HERE, os.O_RDONLY))",
        edit("models/data.txt"),
    ),
    "the working folder": ("os.chdir(HERE)\nopen('data.txt').read()", edit("models/data.txt")),
    "a link of the script's": (
        "os.symlink(HERE / 'data.txt', 'mine')\nopen('mine').read()",
        edit("models/data.txt"),
    ),
    "a program": (
        "import subprocess\nsubprocess.run(['cat', HERE / 'data.txt'], check=True)",
        edit("models/data.txt"),
    ),
    "a child": (
        "import subprocess\n"
        "code = 'import sys; open(sys.argv[1]).read()'\n"
        "subprocess.run([sys.executable, '-c', code, HERE / 'data.txt'], check=True)",
        edit("models/data.txt"),
    ),
    "importlib": (
        "import importlib\nimportlib.import_module('depth')",
        lambda project: (project.models / "depth.py").write_text("LAYERS = 12"),
    ),
    "a module that was missing": (
        "try:\n    import depth\nexcept ImportError:\n    pass",
        lambda project: (project.models / "depth.py").write_text("LAYERS = 12"),
    ),
    "a parent folder's file": ("open(HERE.parent / 'shared.txt').read()", edit("shared.txt")),
    "a listing": (
        "sorted(os.listdir(HERE / 'parts'))",
        lambda project: (project.models / "parts/b.txt").write_text("two"),
    ),
    "glob": ("sorted(HERE.glob('parts/*.txt'))", lambda project: (project.models / "parts/a.txt").unlink()),
    "exists, and no more": (
        "os.path.exists(HERE / 'data.txt')",
        lambda project: (project.models / "data.txt").unlink(),
    ),
    "does not exist, and then does": (
        "os.path.exists(HERE / 'flag')",
        lambda project: (project.models / "flag").touch(),
    ),
    "a file that could not be opened": (
        "try:\n    open(HERE / 'extra.txt')\nexcept OSError:\n    pass",
        edit("models/extra.txt"),
    ),
    "a folder that did not exist": (
        "os.path.isdir(HERE / 'onnx')",
        lambda project: (project.models / "onnx").mkdir(),
    ),
    "a size": ("os.path.getsize(HERE / 'data.txt')", edit("models/data.txt")),
    "a file only asked for": ("os.stat(HERE / 'data.txt')", edit("models/data.txt")),
    "a link within the project": (
        "open(HERE / 'near.txt').read()",
        lambda project: _relink(project.models / "near.txt", project.root / "shared.txt"),
    ),
    "a link that is led outside": (
        "open(HERE / 'near.txt').read()",
        lambda project: _relink(project.models / "near.txt", project.outside / "data.txt"),
    ),
    "a file's mode": (
        "os.stat(HERE / 'data.txt').st_mode & 0o100",
        lambda project: (project.models / "data.txt").chmod(0o755),
    ),
    "runpy": (
        "import runpy\nrunpy.run_path(str(HERE / 'depth.py'))",
        lambda project: (project.models / "depth.py").write_text("LAYERS = 12"),
    ),
    "a module in an archive": (
        "sys.path.insert(0, str(HERE / 'modules.zip'))\nimport packed",
        lambda project: _pack(project.models / "modules.zip", "LAYERS = 12"),
    ),
    "an absent file elsewhere": (
        "os.path.exists(HERE.parents[1] / 'outside/flag')",
        lambda project: (project.outside / "flag").touch(),
    ),
}


def _another() -> object:
    from onnx_files import model

    made = model()
    made.graph.node[0].name = "renamed"
    return made


def _pack(archive: Path, text: str) -> None:
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("packed.py", text)


def _relink(link: Path, target: Path) -> None:
    target.write_text("two")
    link.unlink()
    link.symlink_to(target)


@pytest.mark.parametrize("way", CHANGES)
def test_what_a_script_read_has_changed(project: Project, way: str) -> None:
    body, change = CHANGES[way]
    if way in ("importlib", "runpy"):
        (project.models / "depth.py").write_text("LAYERS = 1")
    known = project.manifest(body)
    assert known.closed, known.open
    assert project.holds(known)
    change(project)
    assert not project.holds(known)


OPEN_WAYS = {
    "a link that leaves the tree": ("open(HERE / 'link.txt').read()", "outside"),
    "a path outside": ("open(HERE.parents[1] / 'outside/data.txt').read()", "outside"),
    "a size outside": ("os.path.getsize(HERE.parents[1] / 'outside/data.txt')", "outside"),
    "a listing outside": ("os.listdir(HERE.parents[1] / 'outside')", "outside"),
    "a hard link": ("os.link(HERE / 'data.txt', 'mine')\nopen('mine').read()", "changed"),
    "a process's folder": ("os.chdir(HERE)\nopen('/proc/self/cwd/data.txt').read()", "special"),
    "the network": ("import socket\nsocket.socket(socket.AF_INET)", "network"),
    "a local socket": (
        "import socket\n"
        "try:\n    socket.socket(socket.AF_UNIX).connect('/run/none')\nexcept OSError:\n    pass",
        "network",
    ),
    "replaced after it was read": (
        "open(HERE / 'data.txt').read()\nopen('x', 'w').write('two')\nos.replace('x', HERE / 'data.txt')",
        "changed",
    ),
    "made after it was missed": (
        "os.path.exists(HERE / 'cache.txt')\nopen(HERE / 'cache.txt', 'w').write('two')",
        "changed",
    ),
    "ended without Python's end": (
        "shutil.copy(HERE / 'made.onnx', path)\nos._exit(0)",
        "unobserved",
    ),
}


@pytest.mark.parametrize("way", OPEN_WAYS)
def test_what_a_script_reads_cannot_be_known(project: Project, way: str) -> None:
    body, code = OPEN_WAYS[way]
    known = project.manifest(body)
    assert [reason.code for reason in known.open] == [code]
    assert not known.closed and not project.holds(known)


def test_only_declared_variables_reach_a_script_and_they_count(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAYERS", "4")
    monkeypatch.setenv("SECRET", "hunter2")
    body = "assert os.environ['LAYERS'] and 'SECRET' not in os.environ"
    known = project.manifest(body, 'env = ["LAYERS"]')
    assert project.holds(known)
    assert "hunter2" not in str(known) and '"4"' not in str(known)
    monkeypatch.setenv("LAYERS", "16")
    assert not project.holds(known)
    monkeypatch.setenv("LAYERS", "4")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    assert not project.holds(known)


def test_declared_reads_add_and_never_remove(project: Project) -> None:
    known = project.manifest(OPEN, 'reads = ["parts"]')
    assert project.holds(known)
    (project.models / "parts/c.txt").write_text("three")
    assert not project.holds(known)
    (project.models / "parts/c.txt").unlink()
    assert project.holds(known)
    (project.models / "data.txt").write_text("two")
    assert not project.holds(known)


@pytest.mark.parametrize(
    "field", [{"python": "CPython 2.7"}, {"platform": "Linux riscv64"}, {"packages": {"numpy": "0.1"}}]
)
def test_another_python_platform_or_package_is_a_change(project: Project, field: dict[str, object]) -> None:
    known = project.manifest("import numpy")
    assert "numpy" in known.packages
    assert project.holds(known)
    assert not project.holds(msgspec.structs.replace(known, **field))


def test_other_programs_in_the_tree_do_not_count(project: Project) -> None:
    stop = threading.Event()
    (project.models / "unrelated.txt").write_text("x")

    def search() -> None:
        while not stop.is_set():
            subprocess.run(["grep", "-rq", "nothing", str(project.root)], check=False, timeout=60)

    beside = threading.Thread(target=search)
    beside.start()
    try:
        known = project.manifest(OPEN)
    finally:
        stop.set()
        beside.join()
    files = {path for path, value in known.reads.items() if value.startswith("sha256:")}
    assert files == {"models/net.py", "models/made.onnx", "models/data.txt"}


def test_without_an_observer_no_manifest_is_closed(project: Project) -> None:
    """A process tree has one listener: beneath an observer there is no other."""
    project.spec(OPEN)
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from perfgate.model.onnx_file import export_onnx\nfrom perfgate.model.read import read_spec\n"
        "from perfgate.model.sources import Sources\nfrom perfgate.util.observe import report_to_parent\n"
        "report_to_parent()\n"
        "made = export_onnx(read_spec(Path(sys.argv[1])), Sources(Path(sys.argv[2])), print)\n"
        "print(made.manifest.open[0].code, made.manifest.closed)"
    )
    from perfgate.util.observe import Observer
    from perfgate.util.process import package_environment, run_child

    observer = Observer()
    argv = [sys.executable, "-c", code, str(project.models / "net.toml"), str(project.root / ".perfgate")]
    done = run_child(argv, timeout_s=60, env=package_environment(), observer=observer)
    observer.finish()
    assert done.failure is None, done.stderr_tail
    assert done.stdout_tail.splitlines()[-1] == "unobserved False"
    assert "generated: what the script reads is not known" in done.stdout_tail


def test_a_graph_that_differs_for_equal_inputs_is_named_and_never_unchanged(project: Project) -> None:
    body = (
        "import numpy, onnx\nmade = onnx.load(HERE / 'made.onnx')\n"
        "made.graph.node[0].name = f'n{numpy.random.default_rng().integers(1 << 40)}'\n"
        "onnx.save(made, HERE.parent / '.perfgate/out.onnx')\nonnx.save(made, path)\nreturn"
    )
    (project.root / ".perfgate").mkdir()
    first = project.manifest(body)
    assert first.closed and project.holds(first), "nobody can see it at the first run"
    said: list[str] = []
    spec = read_spec(project.models / "net.toml")
    again = export_onnx(spec, Sources(project.root / ".perfgate", again=True), said.append)
    assert again.manifest is not None and again.manifest.irreproducible
    assert "name" in again.manifest.irreproducible.value
    assert "not reproducible" in said[0] and "seed every random number" in said[0]
    third = export_onnx(spec, Sources(project.root / ".perfgate"))
    assert not third.cached and third.manifest is not None and not third.manifest.closed
    # Also where only a baseline knows the first.
    fourth = export_onnx(spec, Sources(project.root / "fresh", [first]))
    assert fourth.manifest is not None and fourth.manifest.irreproducible


def test_a_package_that_is_installed_editable_counts_by_its_files(project: Project, tmp_path: Path) -> None:
    package = project.root / "src/myservice"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "net.py").write_text("LAYERS = 4")
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True, timeout=120)
    (site,) = (venv / "lib").glob("python*/site-packages")
    ours = [path for path in sys.path if path.endswith("site-packages")]
    (site / "libraries.pth").write_text("\n".join([str(ROOT), *ours]))
    (site / "__editable__.myservice.pth").write_text(str(project.root / "src"))
    project.spec("from myservice.net import LAYERS")
    code = (
        "import sys\nfrom pathlib import Path\nimport msgspec\n"
        "from perfgate.model.onnx_file import export_onnx\nfrom perfgate.model.read import read_spec\n"
        "from perfgate.model.sources import Sources\n"
        "found = export_onnx(read_spec(Path(sys.argv[1])), Sources(Path(sys.argv[2]))).manifest\n"
        "print(msgspec.json.encode(found).decode())"
    )
    argv = [str(venv / "bin/python"), "-c", code, str(project.models / "net.toml"), str(tmp_path / "store")]
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=120, env=environ)
    known = msgspec.json.decode(done.stdout, type=Manifest)
    assert known.reads["src/myservice/net.py"].startswith("sha256:")
    assert "myservice" not in known.packages


def put_package(project: Project, version: str, patch: pytest.MonkeyPatch) -> None:
    """What `pip install --target` leaves, in a folder that PYTHONPATH names; perfgate looks anew."""
    target = project.outside / "target"
    shutil.rmtree(target, ignore_errors=True)
    (target / f"kit-{version}.dist-info").mkdir(parents=True)
    (target / f"kit-{version}.dist-info/METADATA").write_text(f"Name: kit\nVersion: {version}\n")
    (target / f"kit-{version}.dist-info/RECORD").write_text("kit.py,,\n")
    (target / "kit.py").write_text(f"VERSION = {version!r}\n")
    patch.setenv("PYTHONPATH", str(target))
    patch.syspath_prepend(str(target))
    for cached in (site_folders, python_folders, distributions.identity, distributions._owners):
        cached.cache_clear()


@pytest.fixture
def fresh_caches() -> Iterator[None]:
    yield
    for cached in (site_folders, python_folders, distributions.identity, distributions._owners):
        cached.cache_clear()


@pytest.mark.usefixtures("fresh_caches")
def test_a_package_in_a_folder_of_pythonpath_counts_by_its_version(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_package(project, "1.0", monkeypatch)
    manifest = project.manifest("import kit")
    assert manifest.closed and manifest.packages["kit"] == "1.0"
    assert project.holds(manifest)
    put_package(project, "1.1", monkeypatch)
    assert not project.holds(manifest)


@pytest.mark.usefixtures("fresh_caches")
def test_a_package_in_a_repository_counts_by_its_files(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.outside / ".git").mkdir()
    put_package(project, "1.0", monkeypatch)
    assert [why.code for why in project.manifest("import kit").open] == ["outside"]
