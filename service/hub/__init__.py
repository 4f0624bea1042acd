"""The hub adapter: HTTP calls, the event stream, and how the hub's answers are read."""
