"""The git program: the one function that starts it, and the environment that it gets.

A hook, `git rebase -x`, `git bisect run` and some editors export variables such as `GIT_DIR` and
`GIT_INDEX_FILE`. They belong to the command that the user started. With them, a command of ours would read
another repository, or write the index of the user's commit. So git gets none of them, and finds the
repository from the folder that it is called for.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from perfgate.util.process import TAIL_BYTES, Finished, run_child

TIMEOUT_S = 20
# No hook of the repository runs, and no setting of the user makes a checkout reach into submodules.
NO_HOOKS = ("-c", "core.hooksPath=/dev/null", "-c", "submodule.recurse=false")
_PROGRAM = "git"
_KEY = re.compile(r"GIT_CONFIG_KEY_(\d+)")


def run_git(
    folder: Path,
    *words: str | Path,
    timeout_s: float = TIMEOUT_S,
    environ: Mapping[str, str] = os.environ,
    parsed: bool = True,
    stdout_bytes: int = TAIL_BYTES,
) -> Finished:
    """Run git in the repository around `folder`. `environ` is scrubbed first: see `git_environment`.

    `parsed` is false where git's own words are not read and what git starts is to have the user's language.
    Raises `OSError` where git does not start.
    """
    env = git_environment(environ)
    if parsed:
        env["LC_ALL"] = "C"
    return run_child(
        [_PROGRAM, "-C", folder, *words], timeout_s=timeout_s, env=env, stdout_bytes=stdout_bytes
    )


def git_output(folder: Path, *words: str | Path) -> str | None:
    """What git prints, or None where it fails or does not start."""
    try:
        done = run_git(folder, *words)
    except OSError:
        return None
    return done.stdout_tail if done.failure is None else None


def git_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment without git's own variables, whoever exported them.

    Of the configuration in `GIT_CONFIG_COUNT` the entries of `safe.directory` stay: they are how a job says
    that a checkout of another user is meant. git asks nothing on a terminal, and takes no lock that it can do
    without: `git status` then leaves the user's index as it is.
    """
    kept = {name: value for name, value in environ.items() if not name.startswith("GIT_")}
    safe = _safe_directories(environ)
    for number, folder in enumerate(safe):
        kept[f"GIT_CONFIG_KEY_{number}"] = "safe.directory"
        kept[f"GIT_CONFIG_VALUE_{number}"] = folder
    if safe:
        kept["GIT_CONFIG_COUNT"] = str(len(safe))
    return {**kept, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}


def find_git() -> str | None:
    """Where the program is, or None."""
    return shutil.which(_PROGRAM)


def _safe_directories(environ: Mapping[str, str]) -> list[str]:
    count = environ.get("GIT_CONFIG_COUNT", "")
    limit = int(count) if re.fullmatch(r"[0-9]{1,9}", count) else 0
    numbers = sorted(int(found[1]) for name in environ if (found := _KEY.fullmatch(name)))
    return [
        environ.get(f"GIT_CONFIG_VALUE_{number}", "")
        for number in numbers
        if number < limit and environ.get(f"GIT_CONFIG_KEY_{number}", "").lower() == "safe.directory"
    ]
