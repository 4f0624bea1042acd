"""The Postgres adapter: connections, named statements, migrations, and the stores that workers ask for."""
