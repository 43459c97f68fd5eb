"""The child that runs a task metric: `python -m perfgate.measure.accuracy.metric_child REQUEST.json`.

`score(inputs, outputs)` gets dictionaries of arrays over all samples: the inputs with the data set's extras
(such as labels), and one model's outputs. Its number is written beside the request.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

import msgspec

from perfgate.model.precision.data import DataRequest, DataSet
from perfgate.util.process import die_with_parent
from perfgate.util.user_script import load_observed


def main() -> None:
    import numpy as np

    die_with_parent()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    request = json.loads(Path(sys.argv[1]).read_text())
    data = DataSet(msgspec.json.decode(request["data"], type=DataRequest))
    gathered: dict[str, list[Any]] = {}
    for number in range(len(data)):
        for name, array in {**data.batch(number), **data.extras(number)}.items():
            gathered.setdefault(name, []).append(array)
    inputs = {name: np.concatenate(arrays) for name, arrays in gathered.items()}
    outputs = {
        name: _joined(np.load(Path(request["answers"]) / f"{place}.npy", mmap_mode="r"))
        for place, name in enumerate(request["outputs"])
    }
    room = Path(sys.argv[1]).parent
    observed, score = load_observed(request, "score", "inputs, outputs")
    (room / "score").write_text(repr(float(score(inputs, outputs))))
    observed.write_witness(room)


def _joined(batches: Any) -> Any:
    """Batches of an output, one after another: the two leading axes become one."""
    return batches.reshape(-1, *batches.shape[2:]) if batches.ndim > 1 else batches


if __name__ == "__main__":
    main()
