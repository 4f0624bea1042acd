"""The RabbitMQ adapter: topology, one connection to consume, another to publish."""
