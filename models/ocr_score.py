"""Characters right: 1 - edit distance (Levenshtein, 1966) / characters, over all lines together."""

from __future__ import annotations

from typing import Any

import numpy as np


def read(scores: np.ndarray[Any, Any]) -> list[int]:
    """The classes that an output of [steps, classes] reads: each step's best, repeats and blanks gone."""
    best = scores.argmax(axis=1)
    kept = best[np.insert(best[1:] != best[:-1], 0, True)]
    return [int(one) for one in kept if one]


def distance(one: list[int], other: list[int]) -> int:
    """The fewest insertions, deletions and replacements between two sequences."""
    row = list(range(len(other) + 1))
    for place, left in enumerate(one, start=1):
        before, row[0] = row[0], place
        for column, right in enumerate(other, start=1):
            before, row[column] = (
                row[column],
                min(row[column] + 1, row[column - 1] + 1, before + (left != right)),
            )
    return row[-1]


def score(inputs: dict[str, np.ndarray[Any, Any]], outputs: dict[str, np.ndarray[Any, Any]]) -> float:
    """The share of characters that are read right."""
    wrong = total = 0
    for labels, scores in zip(inputs["labels"], outputs["fetch_name_0"], strict=True):
        truth = [int(one) for one in labels if one >= 0]
        wrong += distance(read(scores), truth)
        total += len(truth)
    return 1 - wrong / total
