"""What to say of a value that does not fit: TOML's words for msgspec's, and what was probably meant."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, get_args

from perfgate.errors import PerfgateError, SpecError
from perfgate.records import Precision

_MOST_TOLD = 20
_README = "see README, Model specs"
_WORDS = {
    "object": "a table",
    "array": "a list",
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
}
# What to write where a table is wanted, by the key's last part.
_TABLES = {
    "source": '[source], and below it script = "model.py" or onnx = "model.onnx"',
    "calibration": '[calibration], and below it data = "…", samples = 64',
    "accuracy": "[accuracy], and below it samples, sqnr_db, metric",
    "sqnr_db": "sqnr_db = { fp16 = 45 }: a floor for each precision",
    "slo": "[slo], and below it engine_p99_ms = 5.0",
}
_CHOICES: dict[str, Sequence[str]] = {
    "precisions": get_args(Precision),
    "sqnr_db": get_args(Precision),
    "graphs": get_args(Precision),
    "method": ("minmax", "entropy", "percentile"),
    "generate": ("normal", "uniform", "integers", "constant", "file"),
}


def raise_all(mistakes: Iterable[PerfgateError]) -> None:
    """Raise the mistakes as one `SpecError`, each with its place and remedy; nothing where there is none."""
    found = list({str(one): one for one in mistakes}.values())
    if len(found) == 1:
        raise found[0]
    if found:
        more = [f"and {len(found) - _MOST_TOLD} more"] if len(found) > _MOST_TOLD else []
        raise SpecError("\n".join([*map(str, found[:_MOST_TOLD]), *more]))


def explained(what: str, key: str, value: Any) -> tuple[str, str]:
    """What is wrong, and the remedy, for a message of msgspec's about `value` at `key`."""
    last = re.sub(r"\[.*?\]", "", key).split(".")[-1]
    unfit = re.fullmatch(r"expected `(\w+)`, got `(\w+)`", what, re.IGNORECASE)
    if unfit and unfit[1] in ("object", "array"):
        said = f"expected {_WORDS[unfit[1]]}, got {_WORDS.get(unfit[2], unfit[2])}"
        return said, _table(key, last, value) if unfit[1] == "object" else _list(key, last, value)
    wrong = re.fullmatch(r"invalid enum value '(.*)'", what, re.IGNORECASE)
    if wrong and last in _CHOICES:
        return f"there is no {wrong[1]!r}", _choice(wrong[1], _CHOICES[last])
    if missing := re.fullmatch(r"object missing required field `(\w+)`", what, re.IGNORECASE):
        example = f"add {missing[1]} = {json.dumps(_CHOICES['precisions'][:2])}"
        fix = example if missing[1] == "precisions" else f"add {missing[1]}: {_README}"
        return f"{missing[1]} is missing", fix
    return what, _README


def _table(key: str, last: str, value: Any) -> str:
    if key == "precision":
        listed = value if isinstance(value, list) else [value]
        return (
            f"the list of what is measured is precisions = {_text(listed)}; [precision] is a table that says "
            "how graphs are converted"
        )
    if last in _TABLES:
        return f"write {_TABLES[last]}"
    return f"write [{key}] and its settings below it; {_README}" if key else _README


def _list(key: str, last: str, value: Any) -> str:
    if last in ("rule", "skip"):
        return f"write [[{key}]], with two brackets: there may be several"
    return f"write {last} = {_text([value])}"


def _choice(word: str, known: Sequence[str]) -> str:
    # Case, and what stands between the parts, are how such words differ most: FP16, min-max, int8_fp16.
    plain = {re.sub(r"[^a-z0-9]", "", name): name for name in known}
    close = difflib.get_close_matches(re.sub(r"[^a-z0-9]", "", word.lower()), plain, n=1)
    meant = f"did you mean {plain[close[0]]!r}? " if close else ""
    return f"{meant}one of: {', '.join(known)}"


def _text(value: Any) -> str:
    """A list as TOML has it; JSON's is the same for what a spec holds."""
    said = json.dumps(value, ensure_ascii=False, default=str)
    return said if len(said) <= 80 else '["…"]'
