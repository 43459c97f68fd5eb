"""One code path for all versions: probing is held against the names that each real version has.

`data/tensorrt_names.json` was extracted from the published wheels by running `extract` below, pasted
into each one's interpreter:

    python -c "<ENUMS, CLASSES, FUNCTIONS, extract>; print(json.dumps(extract(MODULE)))"

with `tensorrt` from tensorrt==8.5.3.1 (CPython 3.10), tensorrt-bindings==8.6.1 and tensorrt-cu12-bindings
10.0.1, 10.8.0.43, 10.16.1.11 and 11.4.0.106, and `tensorrt_rtx` from tensorrt-rtx-cu13==1.7.1.116. The
bindings' wheels hold the whole Python API in `tensorrt.so` and none of the libraries that it is linked
against; empty ones that define the few C entry points (`nm -D --undefined-only tensorrt.so`) let it load.
"""

from __future__ import annotations

import enum
import importlib
import json
import types
from pathlib import Path
from typing import Any

import pytest

from perfgate.engine.tensorrt.api import Api, version_tuple
from perfgate.engine.tensorrt.options import (
    apply_options,
    check_typing,
    network_flags,
    precision_flags,
    tf32_of,
)
from perfgate.errors import CaseError
from perfgate.records import Precision, Recipe

ENUMS = (
    "BuilderFlag", "NetworkDefinitionCreationFlag", "TacticSource", "PreviewFeature",
    "HardwareCompatibilityLevel", "MemoryPoolType", "ProfilingVerbosity", "DataType", "TensorIOMode",
    "TensorLocation", "LayerInformationFormat",
)  # fmt: skip
CLASSES = (
    "Builder", "IBuilderConfig", "INetworkDefinition", "IOptimizationProfile", "ITimingCache", "OnnxParser",
    "ParserError", "Runtime", "ICudaEngine", "IExecutionContext", "EngineInspector", "IPluginRegistry",
    "IProgressMonitor", "ILogger", "ITensor",
)  # fmt: skip
FUNCTIONS = ("init_libnvinfer_plugins", "get_plugin_registry")


def extract(module: str) -> dict[str, Any]:
    """The names of an installed TensorRT module."""
    trt = importlib.import_module(module)
    enums = {name: getattr(trt, name).__members__ for name in ENUMS if hasattr(trt, name)}
    return {
        "classes": {
            name: sorted(x for x in dir(getattr(trt, name)) if not x.startswith("_"))
            for name in CLASSES
            if hasattr(trt, name)
        },
        "enums": {name: {k: int(v) for k, v in sorted(found.items())} for name, found in enums.items()},
        "functions": sorted(name for name in FUNCTIONS if hasattr(trt, name)),
    }


NAMES = json.loads((Path(__file__).parent / "data" / "tensorrt_names.json").read_text())
VERSIONS = ("8.5.3.1", "8.6.1", "10.0.1", "10.8.0.43", "10.16.1.11", "11.4.0.106", "rtx-1.7.1.116")
WITH_WEAK = VERSIONS[:5]
# What the backend calls without asking first, so every version must have it.
CALLED = {
    "Builder": ("create_network", "create_builder_config", "create_optimization_profile",
                "build_serialized_network"),
    "IBuilderConfig": ("set_flag", "get_flag", "clear_flag", "profiling_verbosity", "get_tactic_sources",
                       "set_tactic_sources", "create_timing_cache", "set_timing_cache",
                       "add_optimization_profile", "set_memory_pool_limit", "get_memory_pool_limit"),
    "INetworkDefinition": ("name", "num_inputs", "get_input"),
    "ITensor": ("name", "is_shape_tensor"),
    "IOptimizationProfile": ("set_shape",),
    "ITimingCache": ("serialize",),
    "OnnxParser": ("parse_from_file", "num_errors", "get_error"),
    "ParserError": ("node", "desc", "code", "func"),
    "Runtime": ("deserialize_cuda_engine",),
    "ICudaEngine": ("num_io_tensors", "get_tensor_name", "get_tensor_mode", "get_tensor_dtype",
                    "get_tensor_shape", "get_tensor_location", "get_tensor_profile_shape", "name",
                    "create_execution_context", "create_engine_inspector", "num_optimization_profiles"),
    "IExecutionContext": ("set_input_shape", "infer_shapes", "get_tensor_shape", "set_tensor_address",
                          "execute_async_v3", "set_optimization_profile_async"),
    "EngineInspector": ("get_engine_information",),
    "ILogger": ("log",),
}  # fmt: skip


class Config:
    """A builder config that remembers flags and nothing else; a version's attributes are added to it."""

    def __init__(self, sources: int) -> None:
        self.flags: set[str] = set()
        self.sources = sources
        self.limits: dict[Any, int] = {}
        self.profiling_verbosity: Any = None

    def set_flag(self, flag: enum.IntEnum) -> None:
        self.flags.add(flag.name)

    def clear_flag(self, flag: enum.IntEnum) -> None:
        self.flags.discard(flag.name)

    def get_flag(self, flag: enum.IntEnum) -> bool:
        return flag.name in self.flags

    def get_tactic_sources(self) -> int:
        return self.sources

    def set_tactic_sources(self, mask: int) -> bool:
        self.sources = mask
        return True

    def set_memory_pool_limit(self, pool: enum.IntEnum, size: int) -> None:
        self.limits[pool.name] = size

    def get_memory_pool_limit(self, pool: enum.IntEnum) -> int:
        return self.limits[pool.name]


def api_of(version: str) -> Api:
    """The enums of a real version behind the module's interface."""
    names = NAMES[version]
    trt = types.SimpleNamespace(
        __version__=version.removeprefix("rtx-"),
        **{name: enum.IntEnum(name, members) for name, members in names["enums"].items() if members},
    )
    return Api(trt, rtx=version.startswith("rtx-"))


def config_of(version: str) -> Any:
    api = api_of(version)
    added = {name: 0 for name in NAMES[version]["classes"]["IBuilderConfig"] if not hasattr(Config, name)}
    config = type("Config", (Config,), added)(
        sum(1 << source for source in getattr(api.trt, "TacticSource", ()))
    )
    if api.member("BuilderFlag", "TF32") is not None:
        config.flags.add("TF32")
    return config


def recipe(typing: Any = "strong", precision: Precision = "fp32", **options: Any) -> Recipe:
    return Recipe(
        backend="tensorrt", onnx_digest="0" * 64, precision=precision, typing=typing, options=options
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_called_without_asking_is_everywhere(version: str) -> None:
    found = NAMES[version]["classes"]
    missing = [
        f"{owner}.{name}" for owner, names in CALLED.items() for name in names if name not in found[owner]
    ]
    assert missing == []
    enums = NAMES[version]["enums"]
    assert "DETAILED" in enums["ProfilingVerbosity"]
    assert "JSON" in enums["LayerInformationFormat"]
    assert "HOST" in enums["TensorLocation"]
    assert "INPUT" in enums["TensorIOMode"]
    assert NAMES[version]["functions"] == sorted(FUNCTIONS)


@pytest.mark.parametrize(("module", "prefix"), [("tensorrt", ""), ("tensorrt_rtx", "rtx-")])
def test_the_names_are_those_of_what_is_installed(module: str, prefix: str) -> None:
    version = prefix + str(pytest.importorskip(module).__version__)
    if version not in NAMES:
        pytest.skip(f"the names of {version} were not extracted")
    assert extract(module) == NAMES[version]


def test_versions_compare_as_numbers() -> None:
    assert version_tuple("10.0.1") > version_tuple("8.6.1")
    assert version_tuple("11.0.0.114") >= (11,)
    assert version_tuple("8.5.3.1.post2") == (8, 5, 3, 1)


@pytest.mark.parametrize(
    ("version", "typing", "wanted"),
    [
        ("8.5.3.1", "weak", ["EXPLICIT_BATCH"]),
        ("8.6.1", "weak", ["EXPLICIT_BATCH"]),
        ("10.0.1", "weak", []),
        ("10.0.1", "strong", ["STRONGLY_TYPED"]),
        ("10.16.1.11", "strong", ["STRONGLY_TYPED"]),
        ("11.4.0.106", "strong", ["STRONGLY_TYPED"]),
        ("rtx-1.7.1.116", "strong", ["STRONGLY_TYPED"]),
    ],
)
def test_network_flags(version: str, typing: str, wanted: list[str]) -> None:
    api = api_of(version)
    members = NAMES[version]["enums"]["NetworkDefinitionCreationFlag"]
    check_typing(api, recipe(typing))
    assert network_flags(api, recipe(typing)) == sum(1 << members[name] for name in wanted)


@pytest.mark.parametrize(
    ("version", "typing"),
    [("8.5.3.1", "strong"), ("8.6.1", "strong"), ("11.4.0.106", "weak"), ("rtx-1.7.1.116", "weak")],
)
def test_typing_that_a_version_lacks_is_an_error(version: str, typing: str) -> None:
    with pytest.raises(CaseError, match=typing):
        check_typing(api_of(version), recipe(typing))


@pytest.mark.parametrize("version", WITH_WEAK)
def test_weak_precision_sets_its_flags(version: str) -> None:
    api = api_of(version)
    assert precision_flags(api, "fp16", "weak") == ("FP16",)
    assert precision_flags(api, "int8", "weak") == ("INT8",)
    assert precision_flags(api, "int8+fp16", "weak") == ("INT8", "FP16")
    config = config_of(version)
    apply_options(api, config, recipe("weak", "int8+fp16"))
    assert {"INT8", "FP16", "TF32"} <= config.flags
    assert config.profiling_verbosity.name == "DETAILED"


@pytest.mark.parametrize("version", ["10.16.1.11", "11.4.0.106", "rtx-1.7.1.116"])
def test_strong_precision_sets_no_flag(version: str) -> None:
    config = config_of(version)
    apply_options(api_of(version), config, recipe("strong", "fp16"))
    assert not {"FP16", "INT8", "BF16"} & config.flags


@pytest.mark.parametrize("version", ["11.4.0.106", "rtx-1.7.1.116"])
def test_a_weak_flag_that_is_gone_is_an_error(version: str) -> None:
    with pytest.raises(CaseError, match=r"BuilderFlag\.FP16"):
        precision_flags(api_of(version), "fp16", "weak")


@pytest.mark.parametrize("version", VERSIONS)
def test_cudnn_is_off_unless_asked_for(version: str) -> None:
    api, config = api_of(version), config_of(version)
    before = config.sources
    notes = apply_options(api, config, recipe())
    cudnn = api.member("TacticSource", "CUDNN")
    assert any("cuDNN" in note for note in notes) == (cudnn is not None)
    assert config.sources == (before if cudnn is None else before & ~(1 << int(cudnn)))
    if cudnn is None:
        with pytest.raises(CaseError, match=r"tacticSources.*CUDNN"):
            apply_options(api, config, recipe(tacticSources="+CUDNN"))
    else:
        apply_options(api, config, recipe(tacticSources="+CUDNN,-CUBLAS"))
        assert config.sources & 1 << int(cudnn)
        assert not config.sources & 1 << int(api.trt.TacticSource.CUBLAS)


@pytest.mark.parametrize(
    ("option", "value", "lacking"),
    [
        ("builderOptimizationLevel", 5, {"8.5.3.1"}),
        ("maxAuxStreams", 1, {"8.5.3.1"}),
        ("maxTactics", 10, {"8.5.3.1", "8.6.1", "10.0.1"}),
        ("avgTiming", 4, set()),
        ("hardwareCompatibilityLevel", "ampere+", {"8.5.3.1"}),
        ("hardwareCompatibilityLevel", "sameComputeCapability", {"8.5.3.1", "8.6.1", "10.0.1", "10.8.0.43"}),
        ("versionCompatible", True, {"8.5.3.1"}),
        ("errorOnTimingCacheMiss", True, {"8.5.3.1", "8.6.1"}),
        ("workspace", 512, set()),
        ("memPoolSize", "tacticSharedMem:64K", {"8.5.3.1", "8.6.1"}),
        ("noTF32", True, set()),
    ],
)
@pytest.mark.parametrize("version", VERSIONS)
def test_an_option_works_or_is_an_error(version: str, option: str, value: Any, lacking: set[str]) -> None:
    api, config = api_of(version), config_of(version)
    if version in lacking:
        with pytest.raises(CaseError, match=f"{option}.*{version}"):
            apply_options(api, config, recipe(**{option: value}))
    else:
        apply_options(api, config, recipe(**{option: value}))


def test_options_take_effect() -> None:
    config = config_of("10.16.1.11")
    notes = apply_options(
        api_of("10.16.1.11"),
        config,
        recipe(workspace=512, memPoolSize="tacticSharedMem:64K,dlaSRAM:1", noTF32=True, maxAuxStreams=3),
    )
    assert config.limits == {
        "WORKSPACE": 512 << 20,
        "TACTIC_SHARED_MEMORY": 64 << 10,
        "DLA_MANAGED_SRAM": 1 << 20,
    }
    assert config.max_aux_streams == 3
    assert "TF32" not in config.flags
    assert "TF32 is off" in notes
    assert tf32_of(api_of("10.16.1.11"), config, "fp32") == "off"


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"nonsense": 1}, "nonsense"),
        ({"workspace": -1}, "workspace"),
        ({"workspace": True}, "workspace"),
        ({"memPoolSize": "heap:1"}, "memPoolSize"),
        ({"builderOptimizationLevel": "high"}, "builderOptimizationLevel"),
        ({"tacticSources": "CUBLAS"}, "tacticSources"),
        ({"versionCompatible": "yes"}, "versionCompatible"),
        ({"hardwareCompatibilityLevel": "hopper"}, "hardwareCompatibilityLevel"),
        ({"noTF32": 1}, "noTF32"),
    ],
)
def test_malformed_options_are_named(options: dict[str, Any], word: str) -> None:
    with pytest.raises(CaseError, match=word):
        apply_options(api_of("10.16.1.11"), config_of("10.16.1.11"), recipe(**options))


def test_strongly_typed_must_agree_with_typing() -> None:
    with pytest.raises(CaseError, match="contradicts"):
        check_typing(api_of("10.16.1.11"), recipe("weak", stronglyTyped=True))
    check_typing(api_of("10.16.1.11"), recipe("strong", stronglyTyped=True))
