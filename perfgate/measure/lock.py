"""One benchmark a device at a time: a kernel lock, on a file that everybody on the machine can reach.

The kernel drops the lock when its owner dies, however it dies. A second file beside it says who the
owner is; it serves the waiting message and decides nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path

from filelock import FileLock, Timeout

from perfgate.engine.gpu import device_uuid
from perfgate.engine.interface import Backend
from perfgate.errors import InfrastructureError, UsageError
from perfgate.measure.clocks import clocks_of
from perfgate.settings import Settings

LOCK_DIR_VARIABLE = "PERFGATE_LOCK_DIR"
DEFAULT_LOCK_DIR = Path("/var/lock/perfgate")
FALLBACK = Path("/tmp/perfgate-lock")  # noqa: S108 - everybody's on purpose
# Docker makes the folder of a -v that is missing, and makes it root's alone.
_MAKE = "sudo install -d -m 1777 {}"

_POLL_S = 0.1
_SHARED_FILE = 0o666
_SHARED_DIR = 0o1777
# Anybody may have written the holder's file: what does not look like ours is not shown.
_HOLDER = re.compile(r"(?P<pid>\d{1,10}) (?P<host>[\w.-]{1,64}) (?P<since>\d\d:\d\d:\d\d UTC)")
_HOLDER_LIMIT_BYTES = 200
_ROOT = Path("/")
_CONTAINER_GROUPS = ("docker", "kubepods", "containerd", "libpod", "lxc")


def lock_dir(env: Mapping[str, str] = os.environ) -> Path:
    """The folder of the lock files, made where it is missing.

    `$PERFGATE_LOCK_DIR`, else `/var/lock/perfgate`, else `/tmp/perfgate-lock`, which is the same in all jobs
    of a machine, whatever their TMPDIR. Raises `UsageError` for a folder that was asked for or is there, and
    cannot be written: whoever took another one would be alone with his lock.
    """
    wanted = env.get(LOCK_DIR_VARIABLE)
    folder = Path(wanted or DEFAULT_LOCK_DIR)
    if _usable(folder):
        return folder
    if wanted or folder.exists():
        raise UsageError(
            "the lock folder cannot be written",
            where=folder,
            fix=f"on the machine itself: {_MAKE.format(folder)}; or let {LOCK_DIR_VARIABLE} name another one",
        )
    if _usable(FALLBACK):
        return FALLBACK
    raise InfrastructureError(
        "no folder for lock files can be written", where=FALLBACK, fix=f"set {LOCK_DIR_VARIABLE}"
    )


def _usable(folder: Path) -> bool:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
        # Not through mkdir, whose mode the umask cuts.
        folder.chmod(_SHARED_DIR)
    except FileExistsError:
        pass
    except OSError:
        return False
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


@contextlib.contextmanager
def device_lock(
    name: str, *, timeout_s: float, say: Callable[[str], None], folder: Path | None = None
) -> Iterator[None]:
    """Hold the lock of a device, a GPU's UUID or `cpu`; not re-entrant.

    `say` is called once if it has to wait. Raises `InfrastructureError`, which names the holder, after
    `timeout_s` seconds.
    """
    # A MIG instance's old-style UUID has slashes; a name may not leave the folder.
    path = (lock_dir() if folder is None else folder) / f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)}.lock"
    holder = path.with_name(f"{path.name}.holder")
    lock = FileLock(path, mode=_SHARED_FILE)
    try:
        _acquire(lock, name, holder, timeout_s=timeout_s, say=say)
    except (OSError, NotImplementedError) as error:
        raise InfrastructureError(
            f"the lock of {name} cannot be taken: {error}",
            where=path,
            fix=f"let {LOCK_DIR_VARIABLE} name a local folder that all users of the device may write",
        ) from error
    with contextlib.ExitStack() as stack:
        stack.callback(lock.release)
        stack.callback(_write_holder, holder, "")
        _write_holder(holder)
        yield


def _acquire(
    lock: FileLock, name: str, holder: Path, *, timeout_s: float, say: Callable[[str], None]
) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"waiting for {name} {_holder_text(holder)}")
        try:
            # filelock takes a negative timeout for "for ever".
            timeout_s = max(0.0, timeout_s)
            lock.acquire(timeout=timeout_s, poll_interval=_POLL_S)
        except Timeout as error:
            raise InfrastructureError(
                f"{name} did not become free within {timeout_s:.0f} s: it is {_holder_text(holder)}",
                fix="wait for that run or stop it, or allow more time",
            ) from error
    if type(lock) is not FileLock:
        # Where the file system has no flock, filelock falls back to a file that outlives its owner.
        lock.release()
        raise NotImplementedError("its file system has no flock")


def _holder_text(holder: Path) -> str:
    found = None
    with contextlib.suppress(OSError, UnicodeDecodeError), _opened(holder, os.O_RDONLY) as descriptor:
        found = _HOLDER.fullmatch(os.read(descriptor, _HOLDER_LIMIT_BYTES).decode("ascii"))
    if found is None:
        return "held by another process"
    # In a container, process ids are the container's own: the host's name tells whose.
    return "held by pid {pid} on {host} since {since}".format(**found.groupdict())


def _write_holder(holder: Path, text: str | None = None) -> None:
    if text is None:
        host = re.sub(r"[^A-Za-z0-9_.-]", "_", socket.gethostname())[:64] or "unknown"
        text = f"{os.getpid()} {host} {datetime.now(timezone.utc):%H:%M:%S} UTC"
    # In place: in a sticky folder, nobody may replace another user's file. And without O_CREAT where it
    # exists, which the kernel refuses on another user's file too (fs.protected_regular).
    with contextlib.suppress(OSError):
        create = 0 if holder.exists() else os.O_CREAT | os.O_EXCL
        with _opened(holder, os.O_WRONLY | create) as descriptor:
            with contextlib.suppress(PermissionError):
                os.fchmod(descriptor, _SHARED_FILE)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, text.encode("ascii"))


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    # The folder is everybody's: a link or a pipe that somebody planted is neither followed nor waited for.
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, _SHARED_FILE)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is not a regular file")
        yield descriptor
    finally:
        os.close(descriptor)


def is_private_lock_dir(
    *,
    root: Path = _ROOT,
    env: Mapping[str, str] = os.environ,
    st_dev: Callable[[Path], int] = lambda path: path.stat().st_dev,
) -> str | None:
    """Advice for `doctor` where a container keeps its locks to itself, so that they exclude nobody."""
    if not _in_container(root, env):
        return None
    folder = _chosen(env)
    if st_dev(_there(folder)) != st_dev(root):
        return None
    shared = Path(env.get(LOCK_DIR_VARIABLE) or DEFAULT_LOCK_DIR)
    return (
        f"the lock folder {folder} is private to this container, and benchmarks of two will overlap: on the "
        f"host {_MAKE.format(DEFAULT_LOCK_DIR)}, and for every container that measures "
        f"-v {DEFAULT_LOCK_DIR}:{shared}"
    )


def _chosen(env: Mapping[str, str]) -> Path:
    """The folder that `lock_dir` will take, without making it."""
    folder = Path(env.get(LOCK_DIR_VARIABLE) or DEFAULT_LOCK_DIR)
    makes = os.access(_there(folder), os.W_OK | os.X_OK)
    return folder if LOCK_DIR_VARIABLE in env or folder.exists() or makes else FALLBACK


def _there(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there already: advice must not make it."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def _in_container(root: Path, env: Mapping[str, str]) -> bool:
    if (root / ".dockerenv").exists() or (root / "run/.containerenv").exists():
        return True
    if "KUBERNETES_SERVICE_HOST" in env or "container" in env:
        return True
    try:
        groups = (root / "proc/1/cgroup").read_text(errors="replace")
    except OSError:
        return False
    return any(hint in groups for hint in _CONTAINER_GROUPS)


def lock_name(kind: str, device: str) -> str:
    """What a device's lock is called: `cpu`, or the GPU's UUID."""
    return "cpu" if kind == "cpu" else device_uuid(device)


class DeviceLock:
    """Called, it waits for the device and holds it, over all processes of this machine, its clocks locked
    where that is asked. Whoever has the turn may take it again. Raises `InfrastructureError` where it does
    not come within the settings' time."""

    def __init__(self, backend: Backend, settings: Settings, say: Callable[[str], None]) -> None:
        self._kind, self._settings, self._say = backend.kind, settings, say
        self._held = False

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        if self._held:
            yield
            return
        settings = self._settings
        name = lock_name(self._kind, settings.device)
        with (
            device_lock(name, timeout_s=settings.lock_timeout_s, say=self._say),
            clocks_of(self._kind, settings.device, settings.lock_clocks_mhz),
        ):
            self._held = True
            try:
                yield
            finally:
                self._held = False

    @contextlib.contextmanager
    def to_build(self) -> Iterator[None]:
        """The turn for a build. On a GPU a builder times tactics: beside a benchmark it would spoil both. On
        a CPU nothing is timed."""
        with contextlib.nullcontext() if self._kind == "cpu" else self():
            yield
