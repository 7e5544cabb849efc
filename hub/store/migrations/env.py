"""Alembic's entry: runs the migrations on the connection that `Database.open` hands over, in one transaction."""

from alembic import context

from hub.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=True,  # true here because Database begins transactions itself
)
with context.begin_transaction():
    context.run_migrations()
