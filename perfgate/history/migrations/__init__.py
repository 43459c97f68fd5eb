"""Migrations of the history's schema, run by Alembic when a database is opened."""
