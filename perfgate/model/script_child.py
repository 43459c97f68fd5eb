"""The child that runs a model script: `python -m perfgate.model.script_child REQUEST.json`.

It limits what the script may write, then calls `write_onnx(path, seed, **args)` of the script, observed.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

from perfgate.util.process import die_with_parent
from perfgate.util.user_script import load_observed


def main() -> None:
    die_with_parent()
    request = json.loads(Path(sys.argv[1]).read_text())
    resource.setrlimit(resource.RLIMIT_FSIZE, (request["limit_bytes"], request["limit_bytes"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    room = Path(sys.argv[1]).parent
    made = room / "made"
    made.mkdir()
    observed, write_onnx = load_observed(request, "write_onnx", "path, seed")
    write_onnx(str(made / "model.onnx"), request["seed"], **request["args"])
    observed.write_witness(room)


if __name__ == "__main__":
    main()
