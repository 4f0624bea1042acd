"""The settings of one sandbox hub."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxOptions:
    """What can be chosen about a sandbox. Durations are in seconds, sizes in bytes.

    port 0 takes a free one. delay_s (+- jitter_s, uniform) passes between a POST and the end of its generation, to
    which the time of rendering is added. With render=False a generation succeeds without a file, and its result URL
    answers 404. public_url is put in front of result URLs when clients reach the sandbox under another address than
    the one it binds. results_max_bytes bounds the rendered files on disk: the oldest go first. The same seed throws
    the same dice for faults and jitter; without one, the ledger tells which was drawn.
    """

    host: str = "127.0.0.1"
    port: int = 0
    api_key: str = "sandbox-key"
    namespace: str = "sandbox"
    delay_s: float = 3.0
    jitter_s: float = 0.0
    render: bool = True
    render_workers: int = 2
    results_max_bytes: int = 1 << 30
    url_ttl_s: float = 3600.0
    keep_alive_s: float = 15.0
    public_url: str | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        """Refuse what could not work, naming the field."""
        if not self.api_key:
            raise ValueError("api_key must not be empty")
        for name in ("delay_s", "jitter_s", "url_ttl_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        for name in ("keep_alive_s", "render_workers", "results_max_bytes"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive")
