"""The child that runs a data script: `python -m …precision.data_child SCRIPT OUT COUNT SEED LIMIT`.

Samples are written as they come, so that the set need not fit into memory.
"""

from __future__ import annotations

import itertools
import resource
import sys
from pathlib import Path
from typing import Any

from perfgate.util.process import die_with_parent
from perfgate.util.user_script import load_script


def main() -> None:
    import numpy as np

    die_with_parent()
    script, out, count, seed, limit = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    module = load_script(Path(script))
    if not hasattr(module, "samples"):
        sys.exit(f"{Path(script).name} defines no samples(count, seed)")
    open_arrays: dict[str, Any] = {}
    written = 0
    for sample in itertools.islice(module.samples(int(count), int(seed)), int(count)):
        for name, value in sample.items():
            array = np.asarray(value)
            if name not in open_arrays:
                path = Path(out) / f"{name}.npy"
                open_arrays[name] = np.lib.format.open_memmap(
                    path, "w+", array.dtype, (int(count), *array.shape)
                )
            if array.shape != open_arrays[name].shape[1:] or array.dtype != open_arrays[name].dtype:
                sys.exit(f"sample {written} has {name} as {array.dtype}{list(array.shape)}, unlike the first")
            open_arrays[name][written] = array
        written += 1
    if written < int(count):
        sys.exit(f"samples({count}, {seed}) yielded only {written}")


if __name__ == "__main__":
    main()
