from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx_files import BATCH, spec_text, write_spec

from perfgate.model.cases import expand, profile, skip_reason
from perfgate.model.inputs import make_array
from perfgate.model.read import find_specs, read_spec
from perfgate.model.spec import parse_mode
from perfgate.records import Case, Dimension, InputData, Mode, Tensor, Tolerance

DEFAULT = Mode(drive="graph")
TOLERANCE = Tolerance(ignore=0.005, catch=0.02)


def cases(folder: Path, text: str) -> list[Case]:
    spec = read_spec(write_spec(folder, text))
    return expand(spec, backend="onnxruntime", default_mode=DEFAULT, tolerance=TOLERANCE)


def test_cases_are_precision_by_shape_by_mode_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = spec_text(
        dims=BATCH + "[dims.s]\nmin=1\nopt=1\nmax=9\nmeasure=[9]\n", top='modes=["graph","call"]'
    )
    made = cases(tmp_path, text.replace('["fp32"]', '["fp32", "fp16"]'))
    assert [case.id for case in made] == [
        f"net/{precision}/b{b}-s9/{mode}"
        for precision in ("fp32", "fp16")
        for b in (1, 2)
        for mode in ("graph", "call")
    ]
    assert made[3].shape == {"b": 2, "s": 9}
    assert made[3].items == 2


def test_a_spec_without_dimensions_and_modes_has_one_case_a_precision_in_the_default_mode(
    tmp_path: Path,
) -> None:
    (made,) = cases(tmp_path, spec_text())
    assert (made.id, made.mode, made.shape, made.items) == ("net/fp32", DEFAULT, {}, 1)


def test_ids_are_stable_and_unique(tmp_path: Path) -> None:
    text = spec_text(
        dims="[dims.b]\nmin=1\nopt=1\nmax=99\nmeasure=[1, 11]\n[dims.b1]\nmin=1\nopt=1\nmax=1\nmeasure=[1]"
    )
    ids = [case.id for case in cases(tmp_path, text)]
    assert len(set(ids)) == len(ids)
    assert ids == [case.id for case in cases(tmp_path, text)]


def test_the_models_own_tolerance_goes_over_the_default(tmp_path: Path) -> None:
    assert cases(tmp_path, spec_text())[0].tolerance == TOLERANCE
    own = cases(tmp_path, spec_text(top="ignore = 0.01\ncatch = 0.05"))[0].tolerance
    assert own == Tolerance(ignore=0.01, catch=0.05)
    assert cases(tmp_path, spec_text(top="catch = 0.05"))[0].tolerance == Tolerance(ignore=0.005, catch=0.05)


@pytest.mark.parametrize(
    ("rule", "kind", "reason"),
    [
        ("device = 'cpu'", "cpu", "too slow"),
        ("device = 'cpu'", "gpu", None),
        ("backend = 'onnx*'", "gpu", "too slow"),
        ("backend = 'tensorrt'", "gpu", None),
        ("cases = 'fp32/b1'", "gpu", "too slow"),
        ("cases = 'fp32/b2'", "gpu", None),
        ("cases = 'fp16/*'\ndevice = 'gpu'", "gpu", None),
    ],
)
def test_a_skip_rule_holds_where_all_of_it_fits(
    tmp_path: Path, rule: str, kind: str, reason: str | None
) -> None:
    path = write_spec(tmp_path, spec_text(dims=BATCH, rest=f"[[skip]]\nreason = 'too slow'\n{rule}"))
    spec = read_spec(path)
    case = expand(spec, backend="onnxruntime", default_mode=DEFAULT, tolerance=TOLERANCE)[0]
    assert skip_reason(spec, case, device_kind=kind) == reason


def test_the_profile_is_that_of_the_dimensions(tmp_path: Path) -> None:
    spec = read_spec(write_spec(tmp_path))
    assert profile(spec) == {"b": Dimension(min=1, opt=2, max=4)}


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("call", Mode(drive="call")),
        ("graph+transfers", Mode(drive="graph", transfers=True)),
        ("enqueue+x4+spin", Mode(drive="enqueue", streams=4, wait="spin")),
    ],
)
def test_a_mode_in_words(text: str, mode: Mode) -> None:
    assert parse_mode(text, where="net.toml") == mode


def test_specs_are_found_sorted_and_other_files_are_left_alone(tmp_path: Path) -> None:
    for name in ("b.toml", "a.toml", "readme.md"):
        (tmp_path / name).write_text("")
    assert [path.name for path in find_specs([tmp_path])] == ["a.toml", "b.toml"]


def test_the_digest_of_a_data_file_is_part_of_the_case(tmp_path: Path) -> None:
    text = spec_text(dims=BATCH, rest="[inputs.x]\ngenerate = 'file'\nfile = 'x.npy'")
    digests = set()
    for value in (0, 1):
        np.save(tmp_path / "x.npy", np.full((1, 4), value, np.float32))
        digests.add(cases(tmp_path, text)[0].inputs["x"].file_digest)
    assert len(digests) == 2


GENERATORS = [
    InputData(generate="normal", mean=3.0, std=0.5, seed=1),
    InputData(generate="uniform", low=-1, high=1, seed=1),
    InputData(generate="integers", low=0, high=10, seed=1),
    InputData(generate="constant", value=2.5),
]


@pytest.mark.parametrize("data", GENERATORS, ids=lambda data: str(data.generate))
@pytest.mark.parametrize("dtype", ["float", "float16", "double", "int64"])
def test_an_input_is_the_same_array_every_time_of_the_tensors_shape_and_type(
    tmp_path: Path, data: InputData, dtype: str
) -> None:
    tensor = Tensor(name="x", dtype=dtype, shape=(3, 5))
    one, two = (make_array(tensor, data, tmp_path) for _ in range(2))
    assert one.shape == (3, 5)
    assert one.dtype == np.dtype({"float": "float32", "double": "float64"}.get(dtype, dtype))
    assert one.tobytes() == two.tobytes()


def test_two_inputs_of_one_seed_differ_and_so_do_two_seeds(tmp_path: Path) -> None:
    draws = [
        make_array(Tensor(name=name, dtype="float", shape=(8,)), InputData(seed=seed), tmp_path).tobytes()
        for name in ("x", "y")
        for seed in (0, 1)
    ]
    assert len(set(draws)) == 4


def test_values_keep_to_their_range(tmp_path: Path) -> None:
    tensor = Tensor(name="x", dtype="int64", shape=(1000,))
    drawn = make_array(tensor, InputData(generate="integers", low=3, high=6), tmp_path)
    assert set(drawn.tolist()) == {3, 4, 5}


def test_a_data_file_is_used_as_it_is(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(tmp_path / "x.npy", array)
    tensor = Tensor(name="x", dtype="float", shape=(2, 3))
    data = InputData(generate="file", file="x.npy")
    assert np.array_equal(make_array(tensor, data, tmp_path), array)
