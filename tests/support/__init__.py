"""What tests stand on: servers, databases, vhosts, the service itself."""
