"""The child that runs a model script: `python -m perfgate.model.script_child REQUEST.json`.

It limits what the script may write, then calls `write_onnx(path, seed, **args)` of the script.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

from perfgate.util.process import die_with_parent
from perfgate.util.user_script import load_script


def main() -> None:
    die_with_parent()
    request = json.loads(Path(sys.argv[1]).read_text())
    resource.setrlimit(resource.RLIMIT_FSIZE, (request["limit_bytes"], request["limit_bytes"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    script = Path(request["script"])
    module = load_script(script)
    if not hasattr(module, "write_onnx"):
        sys.exit(f"{script.name} defines no write_onnx(path, seed)")
    module.write_onnx(request["out"], request["seed"], **request["args"])


if __name__ == "__main__":
    main()
