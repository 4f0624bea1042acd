"""The sandbox hub, held against the hub's API reference and the model page."""
