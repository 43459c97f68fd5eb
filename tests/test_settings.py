from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from perfgate.errors import DataError, PerfgateError, UsageError
from perfgate.settings import _VARIABLES, Settings, load_settings, mistyped, options


def project(folder: Path, text: str) -> Path:
    (folder / "pyproject.toml").write_text(text)
    return folder


def load(folder: Path, flags: Any = None, **environ: str) -> Settings:
    return load_settings(flags or {}, start=folder, environ=environ)


def test_flags_go_over_the_environment_over_the_project_over_defaults(tmp_path: Path) -> None:
    assert load(tmp_path).launches is None
    project(tmp_path, "[tool.perfgate]\nlaunches = 2\nout = 'from-project'\nmodels = 'from-project'\n")
    assert load(tmp_path).launches == 2
    joined = load(tmp_path, {"launches": 4}, PERFGATE_LAUNCHES="3", PERFGATE_OUT="from-environment")
    assert (joined.launches, joined.out, joined.models) == (4, "from-environment", "from-project")
    assert joined.baselines == "baselines"


def test_a_flag_that_was_not_given_hides_nothing(tmp_path: Path) -> None:
    assert load(tmp_path, {"launches": None}, PERFGATE_LAUNCHES="3").launches == 3


def test_a_flag_of_false_goes_over_a_true_below(tmp_path: Path) -> None:
    project(tmp_path, "[tool.perfgate]\nrequire_baseline = true\n")
    assert load(tmp_path).require_baseline is True
    assert load(tmp_path, {"require_baseline": False}).require_baseline is False
    assert load(tmp_path, PERFGATE_REQUIRE_BASELINE="0").require_baseline is False


def test_the_nearest_project_with_a_table_is_the_root(tmp_path: Path) -> None:
    project(tmp_path, "[tool.perfgate]\nout = 'o'\n")
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    project(deep, "[tool.other]\n")
    found = load(deep)
    assert found.root == str(tmp_path)
    assert found.path("out") == tmp_path / "o"


def test_without_a_project_the_root_is_where_one_starts(tmp_path: Path) -> None:
    assert load(tmp_path).path("models") == tmp_path / "models"


MISTAKES = [
    ("[tool.perfgate]\nlanches = 3\n", "lanches"),
    ("[tool.perfgate]\nlaunches = 'three'\n", "launches"),
    ("[tool.perfgate]\nlaunches = 0\n", "launches"),
    ("[tool.perfgate]\nlaunches = '3'\n", "launches"),
    ("[tool.perfgate]\nignore = nan\n", "ignore"),
    ("[tool.perfgate]\nout = ''\n", "out"),
    ("[tool.perfgate]\nroot = '/'\n", "root"),
    ("[tool]\nperfgate = 3\n", "tool.perfgate"),
    ("tool = 3\n[perfgate", "TOML"),
    ("x = " + "9" * 5000, "TOML"),
    ("x = " + "[" * 5000, "TOML"),
]


@pytest.mark.parametrize(("text", "key"), MISTAKES)
def test_a_mistake_in_the_project_names_file_and_key(tmp_path: Path, text: str, key: str) -> None:
    project(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        load(tmp_path)
    assert str(tmp_path / "pyproject.toml") in str(caught.value)
    assert key in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["tool = 3\n", "[tool]\n", "", "[project]\nname = 'x'\n"])
def test_a_project_without_our_table_is_let_be(tmp_path: Path, text: str) -> None:
    assert load(project(tmp_path, text)) == load_settings({}, start=tmp_path, environ={})


@pytest.mark.parametrize(
    ("name", "value", "key"),
    [
        ("PERFGATE_LAUNCHES", "many", "launches"),
        ("PERFGATE_LAUNCHES", "-1", "launches"),
        ("PERFGATE_REQUIRE_BASELINE", "perhaps", "require_baseline"),
        ("PERFGATE_CATCH", "nan", "catch"),
        ("PERFGATE_OUT", "", "out"),
    ],
)
def test_a_mistake_in_the_environment_is_named(tmp_path: Path, name: str, value: str, key: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, **{name: value})
    assert "environment" in str(caught.value)
    assert key in str(caught.value)


def test_an_unknown_setting_is_answered_with_the_one_that_was_meant(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="lanches: unknown key\n  fix: did you mean 'launches'"):
        load(project(tmp_path, "[tool.perfgate]\nlanches = 3\n"))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("PERFGATE_LAUNCHS", "PERFGATE_LAUNCHES"),
        ("PERFGATE_Launches", "PERFGATE_LAUNCHES"),
        ("PERFGATE_LOCKDIR", "PERFGATE_LOCK_DIR"),
        ("PERFGATE_REQUIRE_BASELINES", "PERFGATE_REQUIRE_BASELINE"),
    ],
)
def test_a_mistyped_variable_is_warned_of_once(
    tmp_path: Path, name: str, meant: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perfgate.settings._warned", set())
    for _ in range(2):
        assert load(tmp_path, **{name: "3"}).launches is None
    warned = f"perfgate: warning: environment: {name}: unknown; did you mean {meant}?\n"
    assert capsys.readouterr().err == warned


def test_every_variable_that_something_reads_is_known() -> None:
    """All that stand in the package, the workflows, the actions and docker/, and somebody else's."""
    root = Path(__file__).resolve().parents[1]
    places = [path for name in ("perfgate", ".github", "docker") for path in (root / name).rglob("*")]
    text = "".join(
        path.read_text() for path in places if path.suffix in (".py", ".yml", ".sh", "") and path.is_file()
    )
    names = {name for name in re.findall(r"PERFGATE_[A-Z0-9_]+", text) if not name.endswith("_")}
    assert len(names) > 10
    assert mistyped(dict.fromkeys([*names, "PERFGATE_TEAM_BUDGET", "PERFGATE_WEBHOOK_OURS"], "")) == {}
    assert names - {f"PERFGATE_{name}" for name in _VARIABLES} <= {
        "PERFGATE_HISTORY",
        "PERFGATE_OBSERVER_FD",  # from perfgate to its own children
        "PERFGATE_STORE",
        "PERFGATE_WEBHOOK_TEAM",
        "PERFGATE_WEBHOOK_TEAM_SECRET",
    }, "list it in perfgate/settings.py: _VARIABLES"


def test_a_project_that_is_cut_short_is_told_how_to_mend_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fix: the file ends too early: complete its last entry"):
        load(project(tmp_path, "[tool.perfgate]\nlaunches = "))
    with pytest.raises(UsageError, match="fix: correct the line it names"):
        load(project(tmp_path, "[tool.perfgate]\nlaunches = = 3\n"))


def test_an_unknown_flag_and_a_bad_one_are_named(tmp_path: Path) -> None:
    for flags, key in (({"lanches": 3}, "lanches"), ({"launches": 0}, "launches")):
        with pytest.raises(UsageError, match=key) as caught:
            load(tmp_path, flags)
        assert "flags" in str(caught.value)


def test_a_project_file_of_more_than_a_mebibyte_is_not_parsed(tmp_path: Path) -> None:
    project(tmp_path, "#" * (2 << 20))
    with pytest.raises(DataError, match="larger than"):
        load(tmp_path)


@settings(deadline=None, max_examples=100)
@given(data=st.binary(max_size=200))
def test_random_bytes_for_a_project_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    folder = tmp_path_factory.getbasetemp()
    for head in (b"", b"[tool.perfgate]\n"):
        (folder / "pyproject.toml").write_bytes(head + data)
        read_or_refused(folder)


WHOLE = b"[tool.perfgate]\nlaunches = 3\nignore = 0.1\ncatch = 0.2\nout = 'o'\nrequire_baseline = true\n"


@settings(deadline=None, max_examples=200)
@given(at=st.integers(0, len(WHOLE) - 1), byte=st.integers(0, 255), cut=st.booleans())
def test_a_project_that_is_cut_short_or_has_one_byte_changed_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, at: int, byte: int, cut: bool
) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "pyproject.toml").write_bytes(
        WHOLE[:at] if cut else WHOLE[:at] + bytes([byte]) + WHOLE[at + 1 :]
    )
    read_or_refused(folder)


def read_or_refused(folder: Path) -> None:
    try:
        load(folder)
    except PerfgateError as error:
        assert isinstance(error, UsageError | DataError)
    finally:
        (folder / "pyproject.toml").unlink()


@settings(deadline=None, max_examples=100)
@given(key=st.sampled_from(sorted([*options(), "root"])), value=st.text(max_size=20))
def test_any_text_in_the_environment_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: str
) -> None:
    try:
        load(tmp_path_factory.getbasetemp(), **{f"PERFGATE_{key.upper()}": value})
    except PerfgateError as error:
        assert isinstance(error, UsageError)


def test_the_protocol_of_a_kind_of_device_with_our_own_numbers_over_it() -> None:
    assert Settings().protocol("gpu").min_samples > Settings().protocol("cpu").min_samples
    own = Settings(launches=7, duration_ms=20, warmup_ms=0, min_samples=1, launch_timeout_s=9).protocol("cpu")
    assert (own.launches, own.duration_ns, own.warmup_ns) == (7, 20_000_000, 0)
    assert (own.min_samples, own.timeout_s) == (1, 9)


def test_the_tolerance_of_a_kind_of_device_with_our_own_numbers_over_it() -> None:
    gpu, cpu = Settings().tolerance("gpu"), Settings().tolerance("cpu")
    assert (gpu.ignore, gpu.catch) == (0.005, 0.02)
    assert cpu.catch > gpu.catch
    assert Settings(catch=0.5).tolerance("cpu").catch == 0.5


@pytest.mark.parametrize("own", [Settings(ignore=0.5), Settings(catch=0.05), Settings(ignore=0.2, catch=0.2)])
def test_an_ignore_that_is_not_below_catch_is_refused(own: Settings) -> None:
    with pytest.raises(UsageError, match="not below catch"):
        own.tolerance("cpu")
