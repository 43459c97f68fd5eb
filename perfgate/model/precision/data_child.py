"""The child that runs a data script: `python -m perfgate.model.precision.data_child REQUEST.json`.

Samples are written as they come, so that the set need not fit into memory.
"""

from __future__ import annotations

import itertools
import json
import resource
import sys
from pathlib import Path
from typing import Any

from perfgate.util.process import die_with_parent
from perfgate.util.user_script import load_observed


def main() -> None:
    import numpy as np

    die_with_parent()
    request = json.loads(Path(sys.argv[1]).read_text())
    count, seed, limit = request["count"], request["seed"], request["limit_bytes"]
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    room = Path(sys.argv[1]).parent
    out = room / "made"
    out.mkdir()
    observed, samples = load_observed(request, "samples", "count, seed")
    open_arrays: dict[str, Any] = {}
    written = 0
    for sample in itertools.islice(samples(count, seed), count):
        for name, value in sample.items():
            array = np.asarray(value)
            if name not in open_arrays:
                path = out / f"{name}.npy"
                open_arrays[name] = np.lib.format.open_memmap(path, "w+", array.dtype, (count, *array.shape))
            if array.shape != open_arrays[name].shape[1:] or array.dtype != open_arrays[name].dtype:
                sys.exit(f"sample {written} has {name} as {array.dtype}{list(array.shape)}, unlike the first")
            open_arrays[name][written] = array
        written += 1
    if written < count:
        sys.exit(f"samples({count}, {seed}) yielded only {written}")
    observed.write_witness(room)


if __name__ == "__main__":
    main()
