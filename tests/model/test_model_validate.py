from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings, strategies as st
from onnx_files import BATCH, FLOAT, INT64, model, spec_text, with_external_data, write, write_spec

from perfgate.errors import DataError, PerfgateError, SpecError
from perfgate.model.cases import expand
from perfgate.model.graph import check_against_graph, read_graph
from perfgate.model.inputs import make_array
from perfgate.model.read import read_spec, read_specs
from perfgate.records import InputData, Mode, Tensor, Tolerance

TOLERANCE = Tolerance(ignore=0.1, catch=0.3)


def check(path: Path) -> None:
    """Everything that is checked before anything is built, for a model that is a file."""
    spec = read_spec(path)
    expand(spec, backend="onnxruntime", default_mode=Mode(), tolerance=TOLERANCE)
    check_against_graph(spec, read_graph(spec.folder / spec.source.onnx))


def test_a_spec_that_fits_is_accepted(tmp_path: Path) -> None:
    check(write_spec(tmp_path))


def dims(line: str) -> str:
    return spec_text(dims=f"[dims.b]\n{line}\n")


INTEGERS = '[inputs.x]\ngenerate = "integers"\n'
MISTAKES = {
    "unknown key": (spec_text(dims=BATCH, top='precison = "fp32"'), "precison", "did you mean 'precision"),
    "unknown key in a section": (spec_text('onnx = "net.onnx"\nsede = 1'), "source.sede", "'seed'"),
    "unknown key in a dimension": (dims("min=1\nopt=1\nmax=1\nmeasure=[1]\nmx=1"), "dims.b.mx", "'max'"),
    "computed key": (spec_text(dims=BATCH, rest="[inputs.x]\nfile_digest = 'a'"), "file_digest", "remove it"),
    "no schema": (
        'name = "net"\nprecisions = ["fp32"]\n[source]\nonnx = "net.onnx"',
        "schema",
        "add schema =",
    ),
    "another schema": (spec_text().replace("/v1", "/v9"), "schema", "perfgate-trt/model/v1"),
    "no source": (spec_text(""), "source", "script = "),
    "two sources": (spec_text('onnx = "net.onnx"\nscript = "net.py"'), "source", "script = "),
    "missing file": (spec_text('onnx = "lost.onnx"'), "source.onnx", "no such file: lost.onnx"),
    "missing script": (spec_text('script = "lost.py"'), "source.script", "no such file: lost.py"),
    "folder for a file": (spec_text('onnx = "."'), "source.onnx", "no such file"),
    "file outside": (spec_text('onnx = "../net.onnx"'), "source.onnx", "outside"),
    "absolute file": (spec_text('onnx = "/etc/passwd"'), "source.onnx", "outside"),
    "file with a null": (spec_text(r'onnx = "a\u0000b"'), "source.onnx", "put it in"),
    "file with a long name": (spec_text(f'onnx = "{"a" * 400}"'), "source.onnx", "no such file"),
    "min above max": (dims("min=4\nopt=4\nmax=1\nmeasure=[1]"), "dims.b", "min <= opt <= max"),
    "opt outside": (dims("min=1\nopt=9\nmax=4\nmeasure=[1]"), "dims.b", "min <= opt <= max"),
    "zero": (dims("min=0\nopt=1\nmax=4\nmeasure=[1]"), "dims.b.min", ">= 1"),
    "word for a number": (dims("min='one'\nopt=1\nmax=4\nmeasure=[1]"), "dims.b.min", "expected `int`"),
    "huge number": (dims(f"min={'9' * 5000}\nopt=1\nmax=4\nmeasure=[1]"), "net.toml", "not valid TOML"),
    "number over 64 bits": (dims("min=9999999999999999999\nopt=1\nmax=4\nmeasure=[1]"), "dims.b.min", "<"),
    "measured outside": (dims("min=1\nopt=2\nmax=4\nmeasure=[8]"), "dims.b.measure", "widen min and max"),
    "measured twice": (dims("min=1\nopt=2\nmax=4\nmeasure=[1, 1]"), "dims.b.measure", "repeated"),
    "nothing measured": (dims("min=1\nopt=2\nmax=4\nmeasure=[]"), "dims.b.measure", "length >= 1"),
    "dimension that the graph lacks": (
        spec_text(dims=BATCH + BATCH.replace("dims.b", "dims.seq")),
        "dims.seq",
        "it has: b",
    ),
    "dynamic dimension without a profile": (
        spec_text(),
        "dims.b",
        "add:\n    [dims.b]\n    min = 1\n    opt = 8\n    max = 32\n    measure = [1, 8]",
    ),
    "wrong name": (spec_text(dims=BATCH).replace('"net"', '"other"'), "name", 'name = "net"'),
    "name that is no file's": (spec_text().replace('"net"', '"../net"'), "name", "matching regex"),
    "bad mode": (spec_text(dims=BATCH, top='modes = ["grahp"]'), "modes", "graph, enqueue or call"),
    "bad word in a mode": (spec_text(dims=BATCH, top='modes = ["graph+fast"]'), "modes", "+transfers"),
    "too many streams": (spec_text(dims=BATCH, top='modes = ["graph+x65"]'), "modes", "'graph+x65'"),
    "mode twice": (spec_text(dims=BATCH, top='modes = ["call", "call"]'), "modes", "repeated"),
    "bad precision": (spec_text().replace('"fp32"', '"fp8"'), "precisions", "fp8"),
    "a precision in capitals": (
        spec_text().replace('"fp32"', '"FP16"'),
        "precisions[0]",
        "did you mean 'fp16'",
    ),
    "precision for precisions": (
        spec_text().replace("precisions =", "precision ="),
        "precision: expected a table, got a list",
        'precisions = ["fp32"]',
    ),
    "a word for a list": (spec_text().replace('["fp32"]', '"fp32"'), "precisions", 'precisions = ["fp32"]'),
    "no precisions": (
        spec_text().replace('precisions = ["fp32"]', ""),
        "precisions is missing",
        "add precisions =",
    ),
    "one bracket for two": (
        spec_text(dims=BATCH, rest='[skip]\ncases = "x"\nreason = "y"\n'),
        "skip",
        "write [[skip]]",
    ),
    "a number for a table": (
        spec_text(dims=BATCH, rest="[accuracy]\nsqnr_db = 40\n"),
        "sqnr_db",
        "fp16 = 45",
    ),
    "a file for a table": (
        spec_text(dims=BATCH, top='calibration = "a.npz"'),
        "calibration",
        "[calibration]",
    ),
    "no such method": (
        spec_text(dims=BATCH, rest='[calibration]\nmethod = "min-max"\n'),
        "calibration.method",
        "did you mean 'minmax'",
    ),
    "no such precision in a table": (
        spec_text(dims=BATCH, rest="[accuracy.sqnr_db]\nfp61 = 40\n"),
        "accuracy.sqnr_db: there is no 'fp61'",
        "'fp16'",
    ),
    "no precision": (spec_text().replace('"fp32"', ""), "precisions", "length >= 1"),
    "precision twice": (spec_text().replace('"fp32"', '"fp32", "fp32"'), "precisions", "repeated"),
    "ignore above catch": (
        spec_text(dims=BATCH, top="ignore = 0.3\ncatch = 0.1"),
        "ignore",
        "not below catch",
    ),
    "ignore equal to catch": (spec_text(dims=BATCH, top="ignore = 0.1\ncatch = 0.1"), "ignore", "0.02"),
    "ignore above the default catch": (spec_text(dims=BATCH, top="ignore = 0.3"), "ignore", "set catch"),
    "catch below the default ignore": (spec_text(dims=BATCH, top="catch = 0.05"), "catch", "set ignore"),
    "ignore that is no number": (spec_text(dims=BATCH, top="ignore = nan"), "ignore", "finite"),
    "infinite": (spec_text(dims=BATCH, rest="[inputs.x]\nhigh = inf"), "inputs.x.high", "finite"),
    "bad slo": (spec_text(dims=BATCH, rest="[slo]\nengine_p99_ms = 0"), "slo.engine_p99_ms", "> 0"),
    "input that the graph lacks": (spec_text(dims=BATCH, rest="[inputs.y]\nseed = 1"), "inputs.y", "has: x"),
    "unknown generator": (spec_text(rest='[inputs.x]\ngenerate = "noise"'), "inputs.x.generate", "noise"),
    "missing data file": (
        spec_text(rest='[inputs.x]\ngenerate = "file"\nfile = "lost.npy"'),
        "inputs.x.file",
        "put it in",
    ),
    "generator without its file": (spec_text(rest='[inputs.x]\ngenerate = "file"'), "inputs.x", "file ="),
    "empty range": (spec_text(rest=f"{INTEGERS}low = 5\nhigh = 5"), "inputs.x", "[low, high)"),
    "no integer in the range": (spec_text(rest=f"{INTEGERS}low = 0.1\nhigh = 0.9"), "inputs.x", "whole"),
    "integers over 64 bits": (spec_text(rest=f"{INTEGERS}low = 0\nhigh = 1e300"), "inputs.x", "64 bits"),
    "missing plugin": (spec_text(dims=BATCH, top='plugins = ["lost.so"]'), "plugins", "lost.so"),
    "skip without a reason": (spec_text(dims=BATCH, rest="[[skip]]\nbackend = 'x'"), "skip", "reason"),
    "not TOML": ("schema = = 1\n", "net.toml", "correct the line it names"),
    "TOML cut short": ("schema = ", "net.toml", "fix: the file ends too early: complete its last entry"),
    "deep TOML": ("x = " + "[" * 5000, "net.toml", "not valid TOML"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_with_file_key_and_remedy(tmp_path: Path, mistake: str) -> None:
    text, key, remedy = MISTAKES[mistake]
    path = write_spec(tmp_path, text)
    with pytest.raises(SpecError) as caught:
        check(path)
    message = str(caught.value)
    assert caught.value.where is not None
    assert caught.value.where.startswith(str(path))
    assert key in message
    assert remedy in message
    assert caught.value.exit_code == 2
    assert "[...]" not in message
    assert len(caught.value.what.splitlines()) == 1 or "add:" in message


def test_two_models_of_one_name_name_both_files(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_spec(tmp_path / folder)
    with pytest.raises(SpecError) as caught:
        read_specs([tmp_path / "a", tmp_path / "b"])
    assert str(tmp_path / "a" / "net.toml") in str(caught.value)
    assert str(tmp_path / "b" / "net.toml") in str(caught.value)


def test_a_file_that_is_named_twice_is_read_once(tmp_path: Path) -> None:
    path = write_spec(tmp_path)
    assert len(read_specs([tmp_path, path])) == 1


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no such file or folder"):
        read_specs([tmp_path / "lost"])


def test_a_spec_of_more_than_a_mebibyte_is_not_parsed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="larger than 1 MiB"):
        read_spec(write_spec(tmp_path, "# " + "x" * (1 << 20)))


def test_a_source_that_is_a_link_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    write(tmp_path / "outside.onnx")
    (tmp_path / "models" / "net.onnx").symlink_to(tmp_path / "outside.onnx")
    with pytest.raises(SpecError, match="outside"):
        check(write_spec(tmp_path / "models"))


def test_a_source_that_is_a_loop_of_links(tmp_path: Path) -> None:
    (tmp_path / "loop.onnx").symlink_to(tmp_path / "loop.onnx")
    with pytest.raises(SpecError):
        check(write_spec(tmp_path, spec_text('onnx = "loop.onnx"', BATCH)))


def test_a_source_that_is_a_link_inside_the_folder_is_read(tmp_path: Path) -> None:
    write(tmp_path / "real.onnx")
    (tmp_path / "net.onnx").symlink_to("real.onnx")
    check(write_spec(tmp_path))


def test_an_integer_input_without_data_shows_the_lines_to_add(tmp_path: Path) -> None:
    write(tmp_path / "net.onnx", model({"ids": (INT64, [1, 4])}))
    with pytest.raises(SpecError) as caught:
        check(write_spec(tmp_path, spec_text()))
    assert '[inputs.ids]\n    generate = "integers"\n    low = 0\n' in str(caught.value)
    lines = [line.strip() for line in str(caught.value).split("add:\n")[1].splitlines()]
    check(write_spec(tmp_path, spec_text(rest="\n".join(lines))))


def test_the_lines_shown_for_a_dynamic_dimension_are_the_ones_that_help(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        check(write_spec(tmp_path, spec_text()))
    check(write_spec(tmp_path, spec_text(dims=str(caught.value).split("add:\n")[1])))


@pytest.mark.parametrize("axis", [None, -1])
def test_a_dynamic_axis_without_a_name_says_to_name_it(tmp_path: Path, axis: int | None) -> None:
    write(tmp_path / "net.onnx", model({"x": (FLOAT, [axis, 4])}))
    with pytest.raises(SpecError, match="axis 0 of input 'x' is dynamic and has no name"):
        check(write_spec(tmp_path, spec_text()))


@pytest.mark.parametrize("content", [b"", b"not onnx", b"version https://git-lfs.github.com/spec/v1\n"])
def test_a_file_that_is_not_onnx(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(SpecError) as caught:
        check(write_spec(tmp_path))
    assert "net.onnx" in str(caught.value)
    assert "export it again" in str(caught.value)


def test_an_onnx_file_cut_short(tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(SpecError, match=r"net\.onnx"):
        check(write_spec(tmp_path))


def test_an_onnx_file_of_an_unknown_element_type(tmp_path: Path) -> None:
    made = model()
    made.graph.input[0].type.tensor_type.elem_type = 999
    with pytest.raises(SpecError):
        read_graph(write(tmp_path / "net.onnx", made))


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../secret", "a" * 400, ""])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret").write_bytes(b"s" * 16)
    (tmp_path / "models").mkdir()
    write(tmp_path / "models" / "net.onnx", with_external_data(location))
    with pytest.raises(SpecError):
        check(write_spec(tmp_path / "models"))


def test_external_data_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s" * 16)
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "weights").symlink_to(tmp_path / "secret")
    write(folder / "net.onnx", with_external_data("weights"))
    with pytest.raises(SpecError, match="leaves the model's folder"):
        check(write_spec(folder))


def test_external_data_under_a_linked_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "weights").write_bytes(b"s" * 16)
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "data").symlink_to(tmp_path / "elsewhere")
    write(folder / "net.onnx", with_external_data("data/weights"))
    with pytest.raises(SpecError, match="leaves the model's folder"):
        check(write_spec(folder))


def test_external_data_that_is_missing(tmp_path: Path) -> None:
    write(tmp_path / "net.onnx", with_external_data("weights"))
    with pytest.raises(SpecError, match="'weights' is missing"):
        check(write_spec(tmp_path))


def test_external_data_is_part_of_the_digest(tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx", with_external_data("weights"))
    digests = set()
    for content in (b"1" * 16, b"2" * 16):
        (tmp_path / "weights").write_bytes(content)
        graph = read_graph(path)
        digests.add(graph.onnx_digest)
        assert graph.onnx_bytes == path.stat().st_size + 16
    assert len(digests) == 2


def test_what_is_read_of_a_graph(tmp_path: Path) -> None:
    made = model({"x": (FLOAT, ["b", 3, 8]), "ids": (INT64, ["b", "s"])})
    graph = read_graph(write(tmp_path / "net.onnx", made))
    assert [(value.name, value.dtype, value.axes) for value in graph.inputs] == [
        ("x", "float", ("b", 3, 8)),
        ("ids", "int64", ("b", "s")),
    ]
    assert (graph.opset, graph.nodes, graph.outputs) == (17, 2, ("x_out", "ids_out"))


@settings(deadline=None, max_examples=80)
@given(data=st.binary(max_size=300))
@example(b"\xff\xfe")
def test_random_bytes_for_a_spec_never_raise_anything_else(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "net.toml"
    path.write_bytes(data)
    with pytest.raises(SpecError):
        read_spec(path)


FULL = spec_text(
    "onnx = 'net.onnx'\nargs = {a = 1}",
    BATCH,
    "modes = ['call']\nignore = 0.1\ncatch = 0.2",
    "[inputs.x]\ngenerate = 'uniform'\nlow = 0\n[slo]\nengine_p99_ms = 1.5\n[[skip]]\nreason = 'no'\n",
).encode()


@settings(deadline=None, max_examples=200)
@given(at=st.integers(0, len(FULL) - 1), byte=st.integers(0, 255), cut=st.booleans())
def test_a_spec_that_is_cut_short_or_has_one_byte_changed_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, at: int, byte: int, cut: bool
) -> None:
    folder = tmp_path_factory.getbasetemp()
    path = write_spec(folder)
    path.write_bytes(FULL[:at] if cut else FULL[:at] + bytes([byte]) + FULL[at + 1 :])
    try:
        check(path)
    except PerfgateError as error:
        assert isinstance(error, SpecError | DataError)
        assert str(folder) in str(error)


names = st.sampled_from(["x", "b", "", "a\0b", "é" * 200, "../up", "dims", "schema", "."])
toml_values = st.recursive(
    st.booleans() | st.integers() | st.floats() | names,
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=3,
)


@settings(deadline=None, max_examples=200)
@given(key=st.sampled_from(["onnx", "script", "seed", "args", "timeout_s", "limit_mib"]), value=toml_values)
def test_any_value_of_any_key_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: object
) -> None:
    import json

    path = write_spec(tmp_path_factory.getbasetemp())
    text = json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf")
    path.write_text(spec_text(f"{key} = {text}", BATCH))
    try:
        check(path)
    except PerfgateError as error:
        assert isinstance(error, SpecError)


ONNX = model().SerializeToString(deterministic=True)


@settings(deadline=None, max_examples=200)
@given(at=st.integers(0, len(ONNX) - 1), byte=st.integers(0, 255), cut=st.booleans())
def test_an_onnx_file_that_is_cut_short_or_has_one_byte_changed_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, at: int, byte: int, cut: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "net.onnx"
    path.write_bytes(ONNX[:at] if cut else ONNX[:at] + bytes([byte]) + ONNX[at + 1 :])
    try:
        read_graph(path)
    except PerfgateError as error:
        assert isinstance(error, SpecError)
    finally:
        path.unlink()


def npy(path: Path, array: object) -> Path:
    np.save(path, array)  # type: ignore[arg-type]
    return path


TENSOR = Tensor(name="x", dtype="float", shape=(2, 2))


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff{"])
def test_a_damaged_data_file_is_told_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(SpecError, match=r"x\.npy"):
        make_array(TENSOR, data_file(), tmp_path)


def test_a_pickled_data_file_is_not_loaded(tmp_path: Path) -> None:
    npy(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object))
    with pytest.raises(SpecError):
        make_array(TENSOR, data_file(), tmp_path)


def test_an_archive_is_not_a_data_file(tmp_path: Path) -> None:
    with (tmp_path / "x.npy").open("wb") as sink:
        np.savez(sink, a=np.zeros((2, 2), np.float32))
    with pytest.raises(SpecError, match="archive"):
        make_array(TENSOR, data_file(), tmp_path)


@pytest.mark.parametrize(("shape", "dtype"), [((2, 3), "float32"), ((2, 2), "float64")])
def test_a_data_file_of_another_shape_or_type_says_both(
    tmp_path: Path, shape: tuple[int, ...], dtype: str
) -> None:
    npy(tmp_path / "x.npy", np.zeros(shape, dtype))
    with pytest.raises(SpecError, match=r"takes float32\[2, 2\]") as caught:
        make_array(TENSOR, data_file(), tmp_path)
    assert caught.value.fix == "save an array of the measured shape as float32"


def data_file() -> InputData:
    return InputData(generate="file", file="x.npy")


def test_onnx_itself_is_happy_with_the_files_made_here() -> None:
    onnx.checker.check_model(model())


def said_of(path: Path) -> str:
    with pytest.raises(SpecError) as caught:
        check(path)
    return str(caught.value)


def test_all_mistakes_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    text = spec_text('onnx = "net.onnx"\nsede = 1', dims=BATCH, top='precison = "fp32"\nignore = -1\n')
    said = said_of(write_spec(tmp_path, text))
    for key, fix in (("precison", "'precision"), ("source.sede", "'seed'"), ("ignore", "README")):
        assert f"net.toml: {key}: " in said and fix in said
    assert said.count("fix: ") == 3


def test_all_that_a_spec_asks_wrongly_is_told_at_once(tmp_path: Path) -> None:
    sizes = {"b": "min=4\nopt=4\nmax=1\nmeasure=[1]", "s": "min=1\nopt=1\nmax=2\nmeasure=[9]"}
    dims = "".join(f"[dims.{name}]\n{lines}\n" for name, lines in sizes.items())
    said = said_of(write_spec(tmp_path, spec_text('onnx = "lost.onnx"', dims=dims, top='modes = ["grahp"]')))
    for key in ("source.onnx", "dims.b", "dims.s.measure", "modes"):
        assert f"net.toml: {key}: " in said


HEAD = 'schema = "perfgate-trt/model/v1"\nname = "net"\nprecisions = ["fp32"]\n'
SOURCE = '[source]\nonnx = "net.onnx"\n'
TOLD = {
    "a top-level key below a table": (
        f'{HEAD}{SOURCE}name = "x"\nsede = 1\n',
        ["source.name", "source.sede"],
    ),
    "dimensions without a name": (
        f"{HEAD}{SOURCE}[dims]\nmin = 1\nmeasure = [1]\n[slo]\nmax = 1\n",
        ["dims.min", "dims.measure", "slo.max"],
    ),
    "what is missing": (
        f"bogus = 1\n{SOURCE}[dims.b]\nmin = 'one'\nmax = 4\n[[skip]]\nbackend = 3\n",
        ["bogus", "dims.b.min", "dims.b", "dims.b", "skip[0].backend", "skip[0]", *["top level"] * 3],
    ),
    "misspelt, and not missing too": (f"{HEAD.replace('precisions', 'precisons')}{SOURCE}", ["precisons"]),
    "BF16": (HEAD.replace("fp32", "bf16") + SOURCE, ["precisions"]),
    "names of the user's own": (
        f"{HEAD}{SOURCE}[inputs.'a.b']\nlow = 'x'\n[floors.'c]']\n[accuracy.sqnr_db]\nfp61 = 3\n",
        ['inputs."a.b".low', 'floors."c]"', "accuracy.sqnr_db"],
    ),
    "tables in lists": (
        f"{HEAD}{SOURCE}[[rule]]\ncases = '*'\n[rule.floors.p99_ns]\nrelative = 'x'\n",
        ["rule[0].floors.p99_ns.relative"],
    ),
    "a key of digits": (f'{HEAD}"{"9" * 5000}" = 1\n{SOURCE}', [f"{'9' * 200}…"]),
    "not a number": (f"{HEAD}ignore = nan\nbogus = 1\n{SOURCE}", ["bogus", "ignore"]),
    "one mistake twice": (f'{HEAD}modes = ["bad", "bad"]\n{SOURCE}', ["modes", "modes"]),
    "data of no kind": (f"{HEAD}{SOURCE}[calibration]\ndata = 'lost.txt'\n", ["calibration.data"]),
    "a folder with a long name": (
        f"{HEAD}{SOURCE}[calibration]\ndata = '{'a' * 300}'\n",
        ["calibration.data"],
    ),
    "keys of a thousand parts": (f"a{'.a' * 1100} = 1\n", []),
}


@pytest.mark.parametrize("what", TOLD)
def test_every_mistake_is_told_once_with_its_place(tmp_path: Path, what: str) -> None:
    text, keys = TOLD[what]
    said = said_of(write_spec(tmp_path, text))
    told = [line.split(f"{tmp_path}/net.toml: ")[1] for line in said.splitlines() if "net.toml: " in line]
    assert sorted(line.split(": ")[0] for line in told if keys) == sorted(keys), said
    assert len(set(told)) == len(told) == said.count("fix: "), said


def test_mistakes_beyond_twenty_are_counted(tmp_path: Path) -> None:
    said = said_of(write_spec(tmp_path, HEAD + "".join(f"k{n} = 1\n" for n in range(25)) + SOURCE))
    assert said.count("unknown key") == 20 and said.endswith("\nand 5 more")


def test_a_name_that_the_graph_spells_otherwise_is_renamed_not_removed_and_added(tmp_path: Path) -> None:
    path = write_spec(tmp_path, spec_text(dims=BATCH, rest="[inputs.ids]\n"))
    inputs = [onnx.helper.make_tensor_value_info("input_ids", INT64, ["batch"])]
    outputs = [onnx.helper.make_tensor_value_info("y", INT64, ["batch"])]
    nodes = [onnx.helper.make_node("Neg", ["input_ids"], ["y"])]
    graph = onnx.helper.make_graph(nodes, "net", inputs, outputs)
    onnx.save(onnx.helper.make_model(graph), tmp_path / "net.onnx")
    said = said_of(path)
    assert "rename it to [dims.batch]" in said and "rename it to [inputs.input_ids]" in said
    assert said.count("fix: ") == 2 and "add:" not in said


def test_the_mistakes_of_several_files_are_told_together(tmp_path: Path) -> None:
    paths = []
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        paths.append(write_spec(tmp_path / name, spec_text('onnx = "lost.onnx"')))
    large = paths.pop()
    large.write_text("#" * (1 << 21))
    with pytest.raises(SpecError) as caught:
        read_specs([*paths, large])
    assert f"{large}: " in str(caught.value)
    assert all(f"{path}: source.onnx: no such file" in str(caught.value) for path in paths)


def test_a_graph_asks_for_all_that_it_needs_at_once(tmp_path: Path) -> None:
    inputs = [
        onnx.helper.make_tensor_value_info(name, INT64, ["b", "s"]) for name in ("input_ids", "token_types")
    ]
    nodes = [onnx.helper.make_node("Add", ["input_ids", "token_types"], ["y"])]
    outputs = [onnx.helper.make_tensor_value_info("y", INT64, ["b", "s"])]
    graph = onnx.helper.make_graph(nodes, "net", inputs, outputs)
    path = write_spec(tmp_path, spec_text())
    onnx.save(onnx.helper.make_model(graph), tmp_path / "net.onnx")
    said = said_of(path)
    for wanted in ("[dims.b]", "[dims.s]", "[inputs.input_ids]", "[inputs.token_types]"):
        assert f"    {wanted}\n" in said
