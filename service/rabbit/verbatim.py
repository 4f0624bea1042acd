"""What aiormq lacks for messages that are sent exactly as they were: the room there is, and what comes back."""

from __future__ import annotations

from typing import Self

from aiormq.channel import Channel
from pamqp.commands import Basic

HEADER_BYTES = 14  # class, weight, body size and flags before the properties


def largest_properties(channel: Channel) -> int:
    """How many bytes of properties a message may have: they must fit in one frame."""
    return channel.max_content_size - HEADER_BYTES


class Returns:
    """Counts the messages that a channel's broker could not route.

    aiormq finds the publish of a returned message by its `message_id`. One that has none, or one that it cannot decode,
    it takes for delivered when the confirm follows; and of two with the same id it fails one. The broker returns before
    it confirms, so whoever compares the count after the confirms misses none.
    """

    def __init__(self, channel: Channel) -> None:
        self.count = 0
        self._pass_on = channel._on_return_frame  # noqa: SLF001 - there is no public place before the matching
        channel._on_return_frame = self._note  # type: ignore[method-assign]  # noqa: SLF001
        vars(channel)["returns"] = self

    @classmethod
    def of(cls, channel: Channel) -> Self:
        """The count of that channel; begun with the first call."""
        found = vars(channel).get("returns")
        return found if isinstance(found, cls) else cls(channel)

    async def _note(self, frame: Basic.Return) -> None:
        self.count += 1
        await self._pass_on(frame)
