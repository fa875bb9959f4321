"""How large a request may be, and how many may wait."""

from __future__ import annotations

from typing import NamedTuple

NO_SNIFFING = {"x-content-type-options": "nosniff"}
BUG = "a bug in the server; its log says more"  # the error of what is not the client's fault


class Limits(NamedTuple):
    """What is refused. A client that exceeds a limit is told which."""

    body_bytes: int = 32 * 2**20  # of one request
    held_bytes: int = 256 * 2**20  # of all requests that are being received or answered
    inputs: int = 64  # of one request
    waiting: int = 1024  # inputs of all requests that are not answered yet
    pixels: int = 64_000_000  # of a photo; more are refused before they are decoded
    characters: int = 10_000  # of a text, or of all values of a row
    writers: int = 4  # texts that are being written at a time
    seconds: float = 60  # until a body has arrived


class Refused(Exception):
    """A request that gets no answer but a status, and a message that says what was expected."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status, self.message = status, message
