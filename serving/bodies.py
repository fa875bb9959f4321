"""The bytes of a request, in memory: nothing that a client sends is written to disk."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.requests import Request

from serving.limits import Limits, Refused


class Bodies:
    """Reads bodies within limits, and knows how many bytes of them are in memory."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self.held = 0

    @contextlib.asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytearray]:
        """The body of a request, which counts as held until the end of the block.

        Raises:
            Refused: it is too large (from its Content-Length, or as soon as more has come), too slow, or too much is
                held for other requests.
            ClientDisconnect: the client went away.
        """
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.limits.body_bytes:
            raise self._too_large()
        body = bytearray()
        try:
            try:
                await asyncio.wait_for(self._receive(request, body), self.limits.seconds)
            except asyncio.TimeoutError:
                raise Refused(408, f"the body did not arrive within {self.limits.seconds:g} seconds") from None
            yield body
        finally:
            self.held -= len(body)

    async def _receive(self, request: Request, body: bytearray) -> None:
        async for chunk in request.stream():
            if len(body) + len(chunk) > self.limits.body_bytes:
                raise self._too_large()
            if self.held + len(chunk) > self.limits.held_bytes:
                raise Refused(429, "too many large requests at once; try again in a second")
            body += chunk
            self.held += len(chunk)

    def _too_large(self) -> Refused:
        return Refused(413, f"a request may have {self.limits.body_bytes:,} bytes at most")
