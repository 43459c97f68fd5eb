"""From a model script to the function that is timed: its `torch_module`, cast, and with named outputs.

The script runs in this process, which is always a child: torch is imported here, when it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from perfgate.engine.interface import Script, named
from perfgate.engine.tensorrt.inspect import shares
from perfgate.errors import CaseError
from perfgate.util.files import file_digest
from perfgate.util.user_script import load_script


def script_digest(script: Script) -> str:
    """SHA-256 of the script itself. What else it reads counts in the recipe's `source`."""
    return file_digest(Path(script.path))


def load_module(script: Script) -> Any:
    """The script's `torch_module(seed, **args)` on the CPU, in eval mode and without gradients.

    Raises `CaseError` for a script that is gone, fails, or has no such function.
    """
    import torch

    path = Path(script.path)
    if not path.is_file():
        raise CaseError(f"the model script {path} is not there", fix="run again from the folder it is in")
    with named(f"the model script {path.name} fails"):
        make = getattr(load_script(path), "torch_module", None)
        if make is None:
            raise CaseError(
                f"the model script {path.name} has no torch_module, so PyTorch has nothing to run",
                fix="define torch_module(seed, **args) beside write_onnx: the same network as nn.Module",
            )
        module = make(script.seed, **script.args)
        if not isinstance(module, torch.nn.Module):
            raise CaseError(
                f"torch_module of {path.name} returned {type(module).__name__}, not an nn.Module",
                fix="return the network itself, with its weights loaded",
            )
        return module.eval().requires_grad_(False)


def function_of(module: Any, *, half: bool, outputs: Sequence[str]) -> Callable[..., tuple[Any, ...]]:
    """The function that is timed: the graph's inputs in their order to its outputs in theirs.

    In FP16 floating inputs are cast to half, and halves that come out to FP32: the model keeps the types
    that the ONNX graph has outside, and the casts are part of its time. Raises `CaseError` where the
    module's outputs are not the graph's.
    """
    import torch

    def forward(*inputs: Any) -> tuple[Any, ...]:
        if half:
            inputs = tuple(x.half() if x.is_floating_point() else x for x in inputs)
        found = module(*inputs)
        if isinstance(found, Mapping):
            missing = [name for name in outputs if name not in found]
            if missing:
                raise CaseError(f"the PyTorch module returns no output {missing[0]!r}, and the graph has it")
            found = tuple(found[name] for name in outputs)
        elif not isinstance(found, (tuple, list)):
            found = (found,)
        if len(found) != len(outputs):
            raise CaseError(
                f"the PyTorch module returns {len(found)} outputs and the ONNX graph has {len(outputs)}"
            )
        return tuple(y.float() if half and y.dtype is torch.float16 else y for y in found)

    return forward


def weight_facts(module: Any) -> tuple[int, dict[str, float]]:
    """The size of all weights and buffers in bytes, and the share of their elements by type."""
    counts: dict[str, int] = {}
    size = 0
    for tensor in (*module.parameters(), *module.buffers()):
        name = str(tensor.dtype).removeprefix("torch.").replace("float", "fp")
        counts[name] = counts.get(name, 0) + tensor.numel()
        size += tensor.numel() * tensor.element_size()
    return size, shares(counts)
