"""drover: generation requests from a message bus to the Oxen hub, and back as events."""
