"""Why a case became slower: layers, graph, environment and recipe, base against head.

`explain_case` is called after a verdict, never while something is timed.
"""

from perfgate.gate.explain.explain import explain_case
from perfgate.gate.explain.side import Side

__all__ = ["Side", "explain_case"]
