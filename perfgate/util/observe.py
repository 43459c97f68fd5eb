"""What a child process and all that it starts read: which files, folders and absent paths.

The child calls `report_to_parent` before it runs foreign code; the parent passes an `Observer` to
`run_child`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import threading
from collections.abc import Iterator

from perfgate.records import Record
from perfgate.util.seccomp import Listener, Notification, install

_DESCRIPTOR = "PERFGATE_OBSERVER_FD"
_AT_FDCWD = (-100, 0xFFFFFF9C, 0xFFFFFFFFFFFFFF9C)
_PATH_BYTES = 4096
_WRITES = os.O_WRONLY | os.O_RDWR
_MAKES = os.O_CREAT | os.O_TRUNC
_ABSENT = (FileNotFoundError, NotADirectoryError)

# Device, inode, mode, size, and the times of the last change of content and of state, in nanoseconds.
Signature = tuple[int, int, int, int, int, int]


class Seen(Record):
    """One path: what it was when it was first asked for (None: absent), whether it was opened or run rather
    than looked at, and whether the process itself made it."""

    signature: Signature | None = None
    opened: bool = False
    made: bool = False

    @property
    def folder(self) -> bool:
        return self.signature is not None and stat.S_ISDIR(self.signature[2])


class Observation(Record):
    """All paths that were asked for, absolute; `network` are peers that were connected to. `fault` says why
    the observation is not whole; it is empty where it is."""

    paths: dict[str, Seen] = {}
    network: tuple[str, ...] = ()
    fault: str = ""


def signature(path: str) -> Signature | None:
    """What a path leads to now, links followed; None for nothing. Raises `OSError` for what cannot be
    asked."""
    try:
        found = os.stat(path)
    except _ABSENT:
        return None
    return (found.st_dev, found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def report_to_parent() -> None:
    """In the child: from here on the parent sees what is read. Where that cannot be had, the parent is
    told."""
    descriptor = os.environ.pop(_DESCRIPTOR, "")
    if not descriptor:
        return
    with socket.socket(fileno=int(descriptor)) as parent:
        try:
            listener = install()
        except (OSError, AttributeError) as error:
            parent.send(str(error).encode()[:500] or b"unknown")
            return
        socket.send_fds(parent, [b"+"], [listener])
        os.close(listener)


class Observer:
    """The parent's side, for one child. Paths below `quiet` are noted without being looked at: there are many
    thousands where a library is imported."""

    def __init__(self, quiet: tuple[str, ...] = ()) -> None:
        self._quiet = quiet
        self._ours, self._childs = socket.socketpair()
        self._thread = threading.Thread(target=self._observe, name="perfgate-observer", daemon=True)
        self._paths: dict[str, Seen] = {}
        self._network: dict[str, None] = {}
        self._fault = "the script ended before it was observed"

    def descriptors(self) -> tuple[int, ...]:
        """What the child inherits."""
        return (self._childs.fileno(),)

    def variables(self) -> dict[str, str]:
        return {_DESCRIPTOR: str(self._childs.fileno())}

    def start(self) -> None:
        """The child has been started."""
        self._childs.close()
        self._thread.start()

    def finish(self) -> Observation:
        """The child and its process group have ended."""
        self._childs.close()
        # A process that left its group would keep the thread waiting: what it reads is of no result any more.
        with contextlib.suppress(OSError):
            self._ours.shutdown(socket.SHUT_RDWR)
        if self._thread.ident is not None:
            self._thread.join(timeout=5)
        fault = "a process of the script outlived it" if self._thread.is_alive() else self._fault
        self._ours.close()
        return Observation(paths=dict(self._paths), network=tuple(self._network), fault=fault)

    def _observe(self) -> None:
        try:
            text, descriptors, _, _ = socket.recv_fds(self._ours, 500, 1)
        except OSError:
            return
        if not descriptors:
            self._fault = text.decode(errors="replace") or self._fault
            return
        self._fault = ""
        listener = Listener(descriptors[0])
        try:
            for notification in listener:
                try:
                    self._note(notification)
                except (OSError, ValueError) as error:
                    self._fault = self._fault or f"a call of the script could not be read: {error}"
                finally:
                    listener.release(notification)
        finally:
            listener.close()

    def _note(self, it: Notification) -> None:
        use, arguments = it.call.use, it.arguments
        if use == "network":
            self._network["the network"] = None
            return
        if use == "connect":
            if peer := _peer(it.thread, arguments[1]):
                self._network[peer] = None
            return
        path = _path(it)
        if path is None:
            return
        opened = use in ("open", "open how", "take", "run")
        flags = 0
        if use == "open":
            flags = arguments[it.call.flags]
        elif use == "open how":
            (flags,) = struct.unpack("<Q", _memory(it.thread, arguments[2], 8))
        known = self._paths.get(path)
        if known is None:
            quiet = path.startswith(self._quiet)
            made = bool(flags & _WRITES and flags & _MAKES)
            self._paths[path] = Seen(signature=None if quiet else signature(path), opened=opened, made=made)
        elif opened and not known.opened:
            self._paths[path] = Seen(signature=known.signature, opened=True, made=known.made)


def _path(it: Notification) -> str | None:
    """The absolute path that a call names; None for a call on an open descriptor or of no readable path."""
    raw = _text(it.thread, it.arguments[it.call.path])
    if not raw:
        return None
    path = os.fsdecode(raw)
    if not path.startswith("/"):
        folder = it.arguments[it.call.folder] if it.call.folder >= 0 else _AT_FDCWD[0]
        at = "cwd" if folder in _AT_FDCWD else f"fd/{folder & 0xFFFFFFFF}"
        path = os.path.join(os.readlink(f"/proc/{it.thread}/{at}"), path)
    if path.startswith("/proc/self/"):
        return path
    # Behind a link `..` is another folder than in the text.
    return os.path.realpath(path) if "/.." in path else os.path.normpath(path)


def _memory(thread: int, address: int, size: int) -> bytes:
    descriptor = os.open(f"/proc/{thread}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, size, address)
    finally:
        os.close(descriptor)


def _text(thread: int, address: int) -> bytes:
    """The C string at an address of another process; empty for one that its own call will be refused for."""
    for part in _spans(address):
        try:
            data = _memory(thread, address, part)
        except OSError:
            return b""
        if b"\0" in data:
            return data[: data.index(b"\0")]
    return b""


def _spans(address: int) -> Iterator[int]:
    """How much to read: a short piece does for most; never over the end of a page that may be the last."""
    page = _PATH_BYTES - address % _PATH_BYTES
    yield min(page, 256)
    yield page
    yield _PATH_BYTES


def _peer(thread: int, address: int) -> str:
    """The path of a local socket that is connected to; empty for the name service's, and for what `socket`
    has told already."""
    (family,) = struct.unpack("<H", _memory(thread, address, 2))
    if family != socket.AF_UNIX:
        return ""
    raw = _text(thread, address + 2)
    return "" if raw.startswith((b"/var/run/nscd", b"/run/nscd")) else f"socket {os.fsdecode(raw)}"
