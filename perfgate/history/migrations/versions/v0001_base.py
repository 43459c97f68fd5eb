"""Runs, environments, cases and launches.

A migration is frozen: it says the tables as they were, and imports nothing that may change.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "environments",
        sa.Column("id", _KEY, primary_key=True),
        sa.Column("digest", sa.Text, nullable=False, unique=True),
        sa.Column("key_digest", sa.Text, nullable=False),
        sa.Column("device", sa.Text, nullable=False),
        sa.Column("toolchain", sa.Text, nullable=False),
        sa.Column("key", sa.JSON, nullable=False),
        sa.Column("noted", sa.JSON, nullable=False),
    )
    op.create_table(
        "runs",
        sa.Column("id", _KEY, primary_key=True),
        sa.Column("run_id", sa.Text, nullable=False, unique=True),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("perfgate", sa.Text, nullable=False),
        sa.Column("commit_sha", sa.Text, nullable=False),
        sa.Column("dirty", sa.Boolean, nullable=False),
        sa.Column("branch", sa.Text, nullable=False),
        sa.Column("environment", _KEY, sa.ForeignKey("environments.id"), nullable=False),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("exit_code", sa.Integer, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("sampled", sa.Boolean, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "cases",
        sa.Column("id", _KEY, primary_key=True),
        sa.Column("run", _KEY, sa.ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
        sa.Column("case_id", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("ratio", sa.Double),
        sa.Column("low", sa.Double),
        sa.Column("high", sa.Double),
        sa.Column("case_digest", sa.Text, nullable=False),
        sa.UniqueConstraint("run", "case_id", name="uq_cases_run_case_id"),
    )
    op.create_table(
        "launches",
        sa.Column("case_key", _KEY, sa.ForeignKey("cases.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("idx", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("latency_ns", sa.BigInteger, nullable=False),
        sa.Column("p99_ns", sa.BigInteger, nullable=False),
        sa.Column("samples", sa.BigInteger, nullable=False),
        sa.Column("load_ns", sa.BigInteger, nullable=False),
        sa.Column("first_inference_ns", sa.BigInteger, nullable=False),
        sa.Column("peak_memory_bytes", sa.BigInteger, nullable=False),
        sa.Column("throughput_qps", sa.Double, nullable=False),
        sa.Column("invalid", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
