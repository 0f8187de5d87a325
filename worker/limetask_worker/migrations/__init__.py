"""The status store's migrations, which Alembic runs."""
