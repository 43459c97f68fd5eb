"""The business half of `demo.py`: the case of the stored H200 results of two stacks.

    python tests/benchmarks/demo_value.py --out perfgate-out/demo

`tests/value/data/h200/original.json` (PyTorch) and `tensorrt.json` are results files of `perfgate run` on one
H200, both with the copies from and to the host; load, limit and effort are those of `demo.toml` beside them.
Where they are not there, the case is that of `example.toml`, whose numbers are given, and the page says so.
Made as of the day of the measurement, or of the price list: the same bytes on any day.
"""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path

import common

from perfgate.report.i18n import LANGUAGES
from perfgate.report.value import csv as value_csv, html as value_html, markdown as value_markdown
from perfgate.run.outputs import read_results
from perfgate.util.files import TEXT_LIMIT_BYTES, read_bytes, record_json, write_text
from perfgate.value.assumptions import Inputs, parse_inputs, parse_prices, terms
from perfgate.value.business import BusinessCase
from perfgate.value.compose import given_case, measured_case

DATA = common.ROOT / "tests" / "value" / "data"
PRICES = common.ROOT / "perfgate" / "value" / "prices.toml"
STACKS = ("original.json", "tensorrt.json")


def stored_case(data: Path = DATA) -> BusinessCase:
    """The case of the stored stacks, or of the given example where none are stored."""
    prices = parse_prices(read_bytes(PRICES, limit_bytes=TEXT_LIMIT_BYTES), str(PRICES))
    paths = [data / "h200" / name for name in STACKS]
    if all(path.is_file() for path in paths):
        runs = [read_results(path) for path in paths]
        day = date.fromisoformat(runs[0].created[:10])
        found = terms(_inputs(data / "demo.toml"), prices, runs[0].environment.key.get("gpu", ""), day)
        return measured_case(runs, found, f"{day:%Y-%m-%d}")
    inputs = _inputs(data / "example.toml")
    assert inputs.given is not None
    day = max(date.fromisoformat(one.date) for one in prices.instances)
    return given_case(terms(inputs, prices, inputs.given.device, day), f"{day:%Y-%m-%d}")


def business_files(case: BusinessCase) -> dict[str, str]:
    """The case in every form, by file name."""
    pages = {
        f"value{'' if language == 'en' else f'.{language}'}.html": value_html.render_case(case, language)
        for language in LANGUAGES
    }
    return {
        **pages,
        "value.md": value_markdown.render_case(case),
        "value.csv": value_csv.render_case(case),
        "value.json": record_json(case),
    }


def _inputs(path: Path) -> Inputs:
    return parse_inputs(read_bytes(path, limit_bytes=TEXT_LIMIT_BYTES), str(path))


def run(options: common.Options) -> int:
    """Write the files, and say where they are."""
    for name, text in business_files(stored_case()).items():
        write_text(options.out / name, text)
        print(f"wrote {options.out / name}")
    return 0


if __name__ == "__main__":
    out = common.option("--out", type=Path, default=Path("perfgate-out/demo"))
    sys.exit(common.main(run, __doc__, [out]))
