"""The local stack: a private Postgres and RabbitMQ for development, tests and the demo. Standard library only."""
