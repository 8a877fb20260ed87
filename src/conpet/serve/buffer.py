"""The memory that bodies and responses take."""

from __future__ import annotations

import asyncio

from conpet.problem_details import too_busy

SMALL_BODY = 64 << 10
"""So many bytes of each body always have room: large ones cannot shut out small ones."""


class Buffer:
    """Counts the bytes of all bodies and responses in the memory of a process.

    Args:
        most: Most bytes.
    """

    def __init__(self, most: int) -> None:
        self.connections: set[asyncio.Transport] = set()
        """The open connections, whose unsent bytes count."""
        self._most = most
        self._bodies = 0

    def take(self, size: int, before: int) -> None:
        """Count a part of a body, after so many bytes of it.

        Raises:
            ApiProblem: There is no room for it.
        """
        if before + size > SMALL_BODY and size > self._most - self._bodies - self._unsent():
            raise too_busy(503, "buffer-full", "too many large requests at once; try again later")
        self._bodies += size

    def give_back(self, size: int) -> None:
        """Take note that bytes of bodies are no longer in memory."""
        self._bodies -= size

    def _unsent(self) -> int:
        return sum(connection.get_write_buffer_size() for connection in self.connections)
