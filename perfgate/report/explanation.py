"""The explanation of a slower case as text."""

from __future__ import annotations

from perfgate.records import Explanation

_SHOWN = 20


def explanation_text(case: str, found: Explanation) -> str:
    """The explanation for a terminal."""
    lines = [f"{case}: {found.cause}", f"  kind               {found.kind}"]
    rows = (
        ("gated", found.gated_base_ns, found.gated_head_ns),
        ("profiled", found.profiled_base_ns, found.profiled_head_ns),
    )
    lines += [
        f"  {name:<18} {base / 1e6:.4f} → {head / 1e6:.4f} ms" for name, base, head in rows if base and head
    ]
    if found.state_ratio is not None:
        lines.append(f"  state of the loads {found.state_ratio:.4f} (head by base; removed from the layers)")
    elif found.profiled_head_ns is not None:
        lines.append("  state of the loads not removed: too little is known to be unchanged to tell it")
    if found.unexplained_ns is not None:
        lines.append(f"  unexplained        {found.unexplained_ns / 1e6:.4f} ms")
    for change in found.layers[:_SHOWN]:
        names = " + ".join(change.head_layers or change.base_layers)[:80]
        share = "" if change.share is None else f"  {change.share:.0%} of the slowdown"
        lines.append(f"  {change.kind:<10} {names}{share}  {change.detail[:120]}")
    lines += [f"  graph      {change.what[:200]}" for change in found.graph[:_SHOWN]]
    lines += [f"  differs    {d.field}: {d.base[:80]} → {d.head[:80]}" for d in found.differences[:_SHOWN]]
    hidden = sum(max(0, len(rows) - _SHOWN) for rows in (found.layers, found.graph, found.differences))
    lines += [f"  ({hidden} more in the results file)"] if hidden else []
    lines += [f"  not seen   {text[:200]}" for text in found.unseen]
    return "\n".join(printable(line) for line in lines)


def printable(text: str) -> str:
    """Names come from models and commits: no control character reaches a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
