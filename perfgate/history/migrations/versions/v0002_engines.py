"""The engine's digest beside each case, filled in from the stored results; and the indexes for series."""

from __future__ import annotations

import json
import zlib
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_LIMIT_BYTES = 64 << 20


def upgrade() -> None:
    op.add_column("cases", sa.Column("engine_digest", sa.Text, nullable=False, server_default=""))
    op.create_index("ix_environments_key_digest", "environments", ["key_digest"])
    op.create_index("ix_runs_created", "runs", ["created", "id"])
    op.create_index("ix_cases_case_id", "cases", ["case_id", "run"])
    _fill_in()


def _fill_in() -> None:
    connection = op.get_bind()
    runs = sa.table("runs", sa.column("id", sa.BigInteger), sa.column("payload", sa.LargeBinary))
    cases = sa.table("cases", sa.column("run"), sa.column("case_id"), sa.column("engine_digest"))
    update = (
        sa.update(cases)
        .where(cases.c.run == sa.bindparam("of_run"), cases.c.case_id == sa.bindparam("of_case"))
        .values(engine_digest=sa.bindparam("found"))
    )
    # One payload at a time: together they may not fit into memory.
    for run in connection.scalars(sa.select(runs.c.id)).all():
        payload = connection.scalar(sa.select(runs.c.payload).where(runs.c.id == run))
        found = _engines(payload) if payload else {}
        if found:
            rows = [{"of_run": run, "of_case": name, "found": digest} for name, digest in found.items()]
            connection.execute(update, rows)


def _engines(payload: bytes) -> dict[str, str]:
    table: Any = json.loads(zlib.decompressobj().decompress(payload, _LIMIT_BYTES))
    engines = {
        one["case"]["id"]: (one["outcome"].get("engine") or {}).get("digest", "")
        for one in table.get("cases", [])
    }
    return {name: digest for name, digest in engines.items() if digest}
