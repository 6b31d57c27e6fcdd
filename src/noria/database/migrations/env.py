"""Alembic's entry: run the migrations on the connection that the caller gives, inside its transaction."""

from alembic import context

if __name__ == "env_py":  # the name under which Alembic runs this file; a plain import does nothing
    context.configure(
        connection=context.config.attributes["connection"], transactional_ddl=True, render_as_batch=True
    )
    with context.begin_transaction():
        context.run_migrations()
