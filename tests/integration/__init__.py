"""One adapter or worker against its real server."""
