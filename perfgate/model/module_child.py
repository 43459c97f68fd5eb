"""The child that makes a model's PyTorch module: `python -m perfgate.model.module_child REQUEST.json`.

It calls `torch_module(seed, **args)` of the script, observed, and leaves a digest of the module's weights.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sys
from pathlib import Path

from perfgate.util.process import die_with_parent
from perfgate.util.user_script import load_observed


def main() -> None:
    die_with_parent()
    request = json.loads(Path(sys.argv[1]).read_text())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    room = Path(sys.argv[1]).parent
    observed, torch_module = load_observed(request, "torch_module", "seed")
    weights = hashlib.sha256()
    for name, tensor in sorted(torch_module(request["seed"], **request["args"]).state_dict().items()):
        # By the storage's own bytes: NumPy does not know every type of PyTorch's.
        data = tensor.detach().cpu().contiguous().flatten().view(tensor.dtype).untyped_storage()
        weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        weights.update(bytes(data))
    made = room / "made"
    made.mkdir()
    (made / "weights.sha256").write_text(weights.hexdigest())
    observed.write_witness(room)


if __name__ == "__main__":
    main()
