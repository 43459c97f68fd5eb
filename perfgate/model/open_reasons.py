"""Why a model is generated although its script has not changed, as a sentence."""

from __future__ import annotations

from perfgate.records import Manifest

_SENTENCES = {
    "outside": "generated: {} lies outside the project",
    "network": "generated: the script asked {}",
    "changed": "generated: {} changed while the script read it",
    "unobserved": "generated: what the script reads is not known ({})",
    "special": "generated: {} is no file and no folder",
    "large": "generated: the script reads more than {} paths",
    "irreproducible": (
        "not reproducible: the same inputs made another graph ({}); seed every random number in the script, "
        "and write no time, path or address into the graph"
    ),
}


def open_sentence(manifest: Manifest) -> str:
    """The first reason of an open manifest; empty for a closed one."""
    reason = manifest.irreproducible or next(iter(manifest.open), None)
    return _SENTENCES[reason.code].format(reason.value) if reason else ""
