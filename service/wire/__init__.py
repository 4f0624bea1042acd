"""Bytes to domain values and back: JSON, pydantic models, model schemas, CloudEvents. Pure: no I/O in here.

Kept apart from `domain` so that the rules there need nothing but the standard library.
"""
