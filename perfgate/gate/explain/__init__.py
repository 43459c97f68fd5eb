"""Why a case became slower: layers, graph, environment and recipe, base against head.

`explain.explain_case` is called after a verdict, never while something is timed.
"""
