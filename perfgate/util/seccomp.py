"""Linux's seccomp user notification by ctypes: which files does a process tree ask the kernel for?

The observed process installs a filter on itself (`install`), which its children inherit and cannot remove.
Each call that names a path then waits until the holder of the listener has seen it and lets it go on
(`Listener`). x86-64 and aarch64; root is not needed. Structures and numbers: linux/seccomp.h, linux/filter.h
and the architecture's asm/unistd.h; seccomp_unotify(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import select
import struct
import sys
from collections.abc import Iterator
from typing import Literal, NamedTuple

_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER, _NEW_LISTENER = 1, 8
_RET_ALLOW, _RET_ERRNO, _RET_NOTIFY = 0x7FFF0000, 0x00050000, 0x7FC00000
_CONTINUE = 1
_RECV, _SEND, _SET_FLAGS = 0xC0502100, 0xC0182101, 0x40082104
_SYNC_WAKE_UP = 1
_AT_EMPTY_PATH = 0x1000
_LOCAL_SOCKETS = (1, 16)  # AF_UNIX, AF_NETLINK
# The x32 calls of an x86-64 kernel: the same numbers, from here on.
_X32 = 0x40000000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06

Use = Literal["open", "open how", "look", "take", "run", "connect", "network"]


class Call(NamedTuple):
    """A system call to see: what it does with its path, and which arguments are the folder's descriptor (-1:
    the path is relative to the working folder), the path and the flags (-1: it has none)."""

    use: Use
    folder: int = -1
    path: int = 0
    flags: int = -1


_AT: dict[str, Call] = {
    "openat": Call("open", 0, 1, 2),
    "openat2": Call("open how", 0, 1, 2),
    "newfstatat": Call("look", 0, 1, 3),
    "statx": Call("look", 0, 1, 2),
    "faccessat": Call("look", 0, 1),
    "faccessat2": Call("look", 0, 1),
    "readlinkat": Call("look", 0, 1),
    "execve": Call("run"),
    "execveat": Call("run", 0, 1),
    "linkat": Call("take", 0, 1),
    "renameat": Call("take", 0, 1),
    "renameat2": Call("take", 0, 1),
    "connect": Call("connect", path=1),
    "socket": Call("network"),
}
_PLAIN: dict[str, Call] = {
    "open": Call("open", flags=1),
    "stat": Call("look"),
    "lstat": Call("look"),
    "access": Call("look"),
    "readlink": Call("look"),
    "link": Call("take"),
    "rename": Call("take"),
}
_CALLS = {**_AT, **_PLAIN}
_NUMBERS = {
    "x86_64": {
        "arch": 0xC000003E, "seccomp": 317, "io_uring_setup": 425, "open_by_handle_at": 304,
        "openat": 257, "openat2": 437, "newfstatat": 262, "statx": 332, "faccessat": 269, "faccessat2": 439,
        "readlinkat": 267, "execve": 59, "execveat": 322, "linkat": 265, "renameat": 264, "renameat2": 316,
        "connect": 42, "socket": 41,
        "open": 2, "stat": 4, "lstat": 6, "access": 21, "readlink": 89, "link": 86, "rename": 82,
    },
    "aarch64": {
        "arch": 0xC00000B7, "seccomp": 277, "io_uring_setup": 425, "open_by_handle_at": 265,
        "openat": 56, "openat2": 437, "newfstatat": 79, "statx": 291, "faccessat": 48, "faccessat2": 439,
        "readlinkat": 78, "execve": 221, "execveat": 281, "linkat": 37, "renameat": 38, "renameat2": 276,
        "connect": 203, "socket": 198,
    },
}  # fmt: skip
# Ways to open a file that no path names: a process falls back where they are missing.
_DENIED = ("io_uring_setup", "open_by_handle_at")
_WITH_EMPTY_PATH = ("newfstatat", "statx")


def _here() -> dict[str, int]:
    """The system call numbers of this machine. Raises `OSError` for one that has none here."""
    numbers = _NUMBERS.get(platform.machine()) if sys.platform == "linux" else None
    if numbers is None or sys.byteorder != "little":
        raise OSError(errno.ENOSYS, f"no system call table for {sys.platform} on {platform.machine()}")
    return numbers


def _program(numbers: dict[str, int]) -> bytes:
    """The filter: a call that names a path waits for the listener, all others go on."""

    def code(operation: int, value: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("<HBBI", operation, yes, no, value)

    def argument(number: int) -> bytes:
        return code(_LOAD, 16 + 8 * number)

    refused, notify, allow = (
        code(_RETURN, value) for value in (_RET_ERRNO | errno.ENOSYS, _RET_NOTIFY, _RET_ALLOW)
    )
    parts = [code(_LOAD, 4), code(_EQUAL, numbers["arch"], 1, 0), refused, code(_LOAD, 0)]
    parts += [code(_AT_LEAST, _X32, 0, 1), refused]
    for name in _DENIED:
        parts += [code(_EQUAL, numbers[name], 0, 1), refused]
    for name in _CALLS.keys() & numbers.keys():
        if name in _WITH_EMPTY_PATH:
            # Of an open descriptor, which was seen when it was opened.
            parts += [code(_EQUAL, numbers[name], 0, 4), argument(_CALLS[name].flags)]
            parts += [code(_ANY_BIT, _AT_EMPTY_PATH, 0, 1), allow, notify]
        elif name == "socket":
            parts += [code(_EQUAL, numbers[name], 0, 5), argument(0)]
            parts += [
                code(_EQUAL, _LOCAL_SOCKETS[0], 1, 0),
                code(_EQUAL, _LOCAL_SOCKETS[1], 0, 1),
                allow,
                notify,
            ]
        else:
            parts += [code(_EQUAL, numbers[name], 0, 1), notify]
    return b"".join([*parts, allow])


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def install() -> int:
    """Observe this process and all that it starts from now on. Returns the listener's descriptor, to be
    sent to the observer and closed. Raises `OSError` where the kernel, or a sandbox around us, does not
    allow it."""
    numbers = _here()
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS is refused")
    data = _program(numbers)
    program = _Program(len(data) // 8, data)
    library.syscall.restype = ctypes.c_long
    listener: int = library.syscall(
        numbers["seccomp"], _SET_MODE_FILTER, _NEW_LISTENER, ctypes.byref(program)
    )
    if listener < 0:
        raise OSError(ctypes.get_errno(), "the kernel gives no seccomp listener")
    return listener


class Notification(NamedTuple):
    """One call that waits: `thread` made it, with these arguments."""

    id: int
    thread: int
    call: Call
    arguments: tuple[int, ...]


class Listener:
    """The observer's end. Iterate over it, and `release` each notification: its caller waits meanwhile."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._calls = {number: _CALLS[name] for name, number in _here().items() if name in _CALLS}
        self._buffer = bytearray(80)
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        with contextlib.suppress(OSError):
            # A wake-up on this very processor is several times faster (Linux 6.6).
            fcntl.ioctl(descriptor, _SET_FLAGS, _SYNC_WAKE_UP)

    def __iter__(self) -> Iterator[Notification]:
        """Until the last observed process has ended, or the listener is closed."""
        while True:
            try:
                events = self._poll.poll()
                if not events or not events[0][1] & select.POLLIN:
                    return
                self._buffer[:] = bytes(80)
                fcntl.ioctl(self._descriptor, _RECV, self._buffer)
            except InterruptedError:
                continue
            except OSError as error:
                if error.errno == errno.ENOENT:  # its caller was killed
                    continue
                return
            number, thread, _, call, _, _, *arguments = struct.unpack("<QIIiIQ6Q", self._buffer)
            yield Notification(number, thread, self._calls[call], tuple(arguments))

    def release(self, notification: Notification) -> None:
        """Let the call go on."""
        answer = bytearray(struct.pack("<QqiI", notification.id, 0, 0, _CONTINUE))
        try:
            fcntl.ioctl(self._descriptor, _SEND, answer)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise

    def close(self) -> None:
        os.close(self._descriptor)
