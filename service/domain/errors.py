"""Error classes by what a caller may do next, and the error codes that requesters see."""

from __future__ import annotations

from enum import StrEnum


class DroverError(Exception):
    """The base of every error that drover raises on purpose; the message says what happened and what to do."""


class PermanentError(DroverError):
    """Trying again changes nothing until somebody mends something."""


class TransientError(DroverError):
    """It cannot be done now. What was tried may have been done all the same, so it must be safe to repeat."""


class ConfigurationError(PermanentError):
    """A setting is wrong or missing. Names the variable, never its value."""


class DatabaseUnavailableError(TransientError):
    """Postgres did not answer, or its answer was cut off."""


class StatementError(PermanentError):
    """Postgres refused a statement or its arguments: a defect. `code` is the SQLSTATE, or the driver's class."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class BrokerUnavailableError(TransientError):
    """RabbitMQ did not answer, or the connection was cut off."""


class UnroutableError(PermanentError):
    """The broker has no queue for a message that must have one."""


class UnwritableError(PermanentError):
    """A message that cannot be written as AMQP."""


class HubUnavailableError(TransientError):
    """The hub could not be asked: refused, timed out, or an answer that is not its own."""


class HubRefusedKeyError(PermanentError):
    """The hub does not take the key (401), the account (402) or the namespace (403)."""


class ErrorCode(StrEnum):
    """`error.code` in events and answers; the contract's list."""

    INVALID_MESSAGE = "invalid_message"
    INVALID_INPUT = "invalid_input"
    UNKNOWN_MODEL = "unknown_model"
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    UPSTREAM_REJECTED = "upstream_rejected"
    UPSTREAM_FAILED = "upstream_failed"
    UPSTREAM_LOST = "upstream_lost"
    OUTCOME_UNKNOWN = "outcome_unknown"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    CANCELLED = "cancelled"
    INTERNAL = "internal"
