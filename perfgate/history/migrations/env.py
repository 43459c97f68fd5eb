"""Alembic's entry: migrate inside the transaction of the connection that `schema.upgrade` hands over."""

from __future__ import annotations

from alembic import context

from perfgate.history.schema import VERSION_TABLE, metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, version_table=VERSION_TABLE)
with context.begin_transaction():
    context.run_migrations()
