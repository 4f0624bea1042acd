"""The whole service, from message to event."""
