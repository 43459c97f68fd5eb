"""What a script of the user's read when it made something: enough to know that it would make the same
again."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from perfgate.records.base import Name, Record, Text

# outside: a path that is not the project's; network: a peer was asked; changed: a path that was not the same
# when it was digested; unobserved: the observer could not be had, or did not see all; special: no file and no
# folder; irreproducible: equal inputs made another graph; large: more paths than a manifest holds.
OpenCode = Literal["outside", "network", "changed", "unobserved", "special", "irreproducible", "large"]

LONGEST = 5_000


class OpenReason(Record):
    """Why a manifest may not stand for what it describes: the path, the peer or the fault."""

    code: OpenCode
    value: Text = ""


class Manifest(Record, kw_only=True):
    """One call of a script. `key` is the digest of what was called: script, function and arguments.

    `reads` maps each path to `sha256:…` (a file's content), `listing:…` (the digest of a folder's names),
    `folder` (it was only looked at), `module:…` (of a path that ends in `{module}`: the file that an import
    of that name took) or `absent`. Paths are relative to the project (its repository), below `{site}/`
    relative to the installed packages, and absolute for what was found absent elsewhere. `packages` are the
    versions of the installed distributions that were imported, `variables` all that the script was given.
    `made` is the digest of what it made: a canonical graph's, or that of the arrays.
    """

    key: Name
    script: Text
    call: Literal["write_onnx", "torch_module", "samples", "score"]
    reads: Annotated[dict[Text, Text], Meta(max_length=LONGEST)] = {}
    packages: dict[Text, Text] = {}
    variables: dict[Text, Text] = {}
    python: Text = ""
    platform: Text = ""
    made: Text = ""
    open: tuple[OpenReason, ...] = ()

    @property
    def closed(self) -> bool:
        """Whether unchanged inputs may stand for what they made."""
        return not self.open and bool(self.made)

    @property
    def irreproducible(self) -> OpenReason | None:
        """What differed first when the same inputs made something else; None where that was not seen."""
        return next((reason for reason in self.open if reason.code == "irreproducible"), None)
