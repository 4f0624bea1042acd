"""The service's own HTTP: health, readiness, metrics."""
