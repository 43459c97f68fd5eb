"""Calibration and evaluation data: what is read, what is refused in one line, what is warned of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from precision_models import made, network, spec_of

from perfgate.errors import CaseError, SpecError
from perfgate.model.graph import read_graph
from perfgate.model.precision.convert import precision_digest
from perfgate.model.precision.data import DataRequest, DataSet
from perfgate.model.precision.data_quality import spreads, warnings
from perfgate.model.precision.samples import samples_of
from perfgate.model.sources import Sources
from perfgate.records import InputData, Tensor
from perfgate.util.files import file_digest

GOOD = np.random.default_rng(0).standard_normal((6, 3, 8, 8)).astype(np.float32)


def request(path: Path, *, batch: int = 2, samples: int = 6) -> DataRequest:
    return DataRequest(
        tensors=(Tensor(name="x", dtype="float", shape=(batch, 3, 8, 8)),),
        inputs={"x": InputData(seed=1)},
        folder=str(path.parent),
        path=str(path),
        samples=samples,
        seed=5,
    )


def opened(path: Path, **more: Any) -> DataSet:
    return DataSet(request(path, **more))


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_batches_are_cut_from_the_leading_axis_and_the_rest_are_extras(tmp_path: Path) -> None:
    labels = np.arange(6)
    folder = tmp_path / "folder"
    folder.mkdir()
    np.save(folder / "x.npy", GOOD)
    np.save(folder / "labels.npy", labels)
    for path in (save(tmp_path / "set.npz", x=GOOD, labels=labels), folder):
        data = opened(path)
        assert len(data) == 3
        assert np.array_equal(data.batch(1)["x"], GOOD[2:4])
        assert set(data.batch(1)) == {"x"}
        assert data.extras(2)["labels"].tolist() == [4, 5]
        assert len(opened(path, samples=3)) == 2  # as many batches as the samples fill


def yielded(script: Path, count: int = 6) -> DataSet:
    """What a data script yields, in batches."""
    network(script.parent / "net.onnx")
    found = samples_of(spec_of(script.parent), script.name, count, 5, Sources(script.parent / ".store"))
    return DataSet(request(Path(found.path), samples=count))


def test_a_script_yields_samples_in_a_child(tmp_path: Path) -> None:
    script = tmp_path / "lines.py"
    script.write_text(
        "import os\nimport numpy as np\n"
        "def samples(count, seed):\n"
        "    assert 'SECRET' not in os.environ\n"
        "    random = np.random.default_rng(seed)\n"
        "    for number in range(count):\n"
        "        yield {'x': random.random((3, 8, 8), np.float32), 'number': number}\n"
    )
    data = yielded(script)
    assert len(data) == 3
    assert data.extras(1)["number"].tolist() == [2, 3]
    assert np.array_equal(data.batch(0)["x"], yielded(script).batch(0)["x"])
    script.write_text("def samples(count, seed):\n    raise ValueError('no fonts here')\n")
    with pytest.raises(CaseError, match="ValueError: no fonts here"):
        yielded(script)
    script.write_text("def samples(count, seed):\n    return []\n")
    with pytest.raises(CaseError, match="yielded only 0"):
        yielded(script)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({}, "is empty: no array"),
        ({"x": GOOD[:0]}, "'x' is empty"),
        (
            {"x": GOOD.astype(np.float64)},
            r"float64\[6, 3, 8, 8\], the input takes float32\[samples, 3",
        ),
        ({"x": GOOD[:, :, :4]}, r"float32\[6, 3, 4, 8\]"),
        ({"x": GOOD[0]}, "the input takes"),
        ({"y": GOOD}, r"has no array 'x' \(it has: y\)"),
        ({"x": np.where(GOOD > 1, np.nan, GOOD).astype(np.float32)}, "NaN or infinity"),
        ({"x": GOOD[:1]}, "less than one batch of 2"),
    ],
    ids=["no array", "empty", "dtype", "shape", "rank", "name", "nan", "too few"],
)
def test_a_broken_set_is_refused_in_one_line(tmp_path: Path, arrays: Any, said: str) -> None:
    with pytest.raises(CaseError, match=said) as caught:
        opened(save(tmp_path / "set.npz", **arrays))
    assert "\n" not in caught.value.what
    assert caught.value.fix


def test_data_of_another_type_is_to_be_saved_as_the_inputs_own(tmp_path: Path) -> None:
    with pytest.raises(CaseError) as caught:
        opened(save(tmp_path / "set.npz", x=GOOD.astype(np.float64)))
    assert caught.value.fix == "save arrays of the measured shape as float32, samples along the first axis"


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set.npz").write_bytes(b"PK garbage")
    with pytest.raises(CaseError, match=r"set\.npz: is not a \.npz file"):
        opened(tmp_path / "set.npz")
    network(tmp_path / "net.onnx")
    with pytest.raises(SpecError, match="no such file: none"):
        spec_of(tmp_path, '[calibration]\ndata = "none.npz"\n')
    (tmp_path / "set.csv").write_text("1,2")
    with pytest.raises(SpecError, match="of no kind that is read here"):
        spec_of(tmp_path, '[calibration]\ndata = "set.csv"\n')


def test_a_broken_calibration_set_reaches_the_user_as_it_is(tmp_path: Path) -> None:
    network(tmp_path / "net.onnx")
    save(tmp_path / "set.npz", x=GOOD[:, :, :4])
    with pytest.raises(CaseError, match=r"the data set set\.npz: 'x' is float32\[6, 3, 4, 8\]"):
        made(spec_of(tmp_path, '[calibration]\ndata = "set.npz"\n'), "int8")


def test_drawn_data_never_repeats_and_starts_with_what_is_timed(tmp_path: Path) -> None:
    drawn = msgspec.structs.replace(request(tmp_path / "x"), path="")
    first = msgspec.structs.replace(drawn, first_as_is=True)
    one, other = DataSet(drawn), DataSet(first)
    assert not np.array_equal(one.batch(0)["x"], other.batch(0)["x"])
    assert np.array_equal(one.batch(1)["x"], other.batch(1)["x"])
    assert not np.array_equal(one.batch(0)["x"], one.batch(1)["x"])


def test_poor_calibration_data_is_warned_of_in_plain_words() -> None:
    good = spreads([{"x": GOOD, "ids": np.arange(3)}])
    assert warnings(64, good, good) == ()
    assert "only 6 samples" in warnings(6, good, good)[0]
    flat = spreads([{"x": np.full((2, 3), 0.25, np.float32)}])
    assert "is 0.25 everywhere" in warnings(64, flat, good)[0]
    assert "255.0 times wider" in warnings(64, spreads([{"x": GOOD * 255}]), good)[0]
    assert "has mean 4.97, the evaluation data -0.0333" in warnings(64, spreads([{"x": GOOD + 5}]), good)[0]


def test_warnings_travel_with_the_graph(tmp_path: Path) -> None:
    network(tmp_path / "net.onnx")
    save(tmp_path / "set.npz", x=GOOD * 100)
    notes = made(spec_of(tmp_path, '[calibration]\ndata = "set.npz"\nsamples = 6\n'), "int8").notes
    assert any("only 6 samples" in note for note in notes)
    assert any("wider than the evaluation data" in note for note in notes)


def test_the_digest_is_of_sources_and_of_those_that_matter(tmp_path: Path) -> None:
    network(tmp_path / "net.onnx")
    save(tmp_path / "set.npz", x=GOOD)
    data = '[calibration]\ndata = "set.npz"\n'
    spec = spec_of(tmp_path, data)
    assert precision_digest(spec, "fp32", "strong", Sources(tmp_path / ".store")) == ""
    before = {
        one: precision_digest(spec, one, "strong", Sources(tmp_path / ".store"))
        for one in ("fp16", "int8", "int8+fp16")
    }
    assert len(set(before.values())) == 3
    assert precision_digest(spec, "int8+fp16", "weak", Sources(tmp_path / ".store")) != before["int8+fp16"]
    # Not converted to find out; not changed by what the answers are judged by.
    assert not (tmp_path / ".store/precision").exists()
    other = spec_of(tmp_path, f"{data}[accuracy]\nsamples = 3\n")
    assert precision_digest(other, "int8", "strong", Sources(tmp_path / ".store")) == before["int8"]
    entropy = spec_of(tmp_path, f'{data}method = "entropy"\n')
    assert precision_digest(entropy, "int8", "strong", Sources(tmp_path / ".store")) != before["int8"]
    assert precision_digest(entropy, "fp16", "strong", Sources(tmp_path / ".store")) == before["fp16"]
    save(tmp_path / "set.npz", x=GOOD * 2)
    assert precision_digest(spec, "int8", "strong", Sources(tmp_path / ".store")) != before["int8"]


def test_a_ready_made_graph_is_taken_as_it_is(tmp_path: Path) -> None:
    network(tmp_path / "net.onnx")
    own = network(tmp_path / "own.onnx")
    spec = spec_of(tmp_path, '[precision.graphs]\nint8 = "own.onnx"\n')
    emission = made(spec, "int8")
    assert emission.path == str(own)
    assert emission.file_digest == file_digest(own)
    assert (
        precision_digest(spec, "int8", "strong", Sources(tmp_path / ".store")) == read_graph(own).onnx_digest
    )
    assert emission.notes == ("ready-made graph own.onnx",)
