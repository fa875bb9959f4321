"""POST /write: text that appears while a language model writes it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from engine.answers import is_unicode
from engine.predicting import Predictor
from engine.writing import DOES_NOT_WRITE, Style, check_style
from serving.limits import NO_SNIFFING, Limits, Refused
from utils import UserError

EXPECTED = 'Expected JSON such as {"prompt": "ROMEO:", "length": 500, "temperature": 0.8}.'
MOST_BYTES = 2**20  # of a request
PAUSE = 0.03  # seconds between two parts that are sent


class Writers:
    """Those who write at the moment. The parts of a text are computed in threads of a pool."""

    def __init__(self, limits: Limits):
        self.limits, self.count = limits, 0

    def answer(self, predictor: Predictor, body: bytes | bytearray) -> StreamingResponse:
        """A response whose body is text, in parts as it is written. Raises Refused."""
        prompt, style = self.parse(predictor, body)
        if self.count >= self.limits.writers:
            raise Refused(429, f"{self.count} texts are being written; try again in a second")
        unknown = len(predictor.processing.unknown_in(prompt))
        self.count += 1  # the response takes it back
        return Written(write(predictor, prompt, style), self, {"x-unknown-tokens": str(unknown)})

    def parse(self, predictor: Predictor, body: bytes | bytearray) -> tuple[str, Style]:
        """The beginning, and how to go on. Raises Refused."""
        if not predictor.processing.writes:
            raise Refused(422, DOES_NOT_WRITE)
        if len(body) > MOST_BYTES:
            raise Refused(413, f"more than {MOST_BYTES:,} bytes")
        try:
            values = json.loads(body)
        except (ValueError, RecursionError):
            raise Refused(400, f"not JSON. {EXPECTED}") from None
        if not isinstance(values, dict) or not isinstance(prompt := values.pop("prompt", None), str):
            raise Refused(422, EXPECTED)
        if unknown := sorted(values.keys() - {*Style._fields}):
            raise Refused(422, f"unknown field {unknown[0]:.100}. {EXPECTED}")
        if not is_unicode(prompt):
            raise Refused(400, r"a \u escape that is half a surrogate pair. Send both, or UTF-8.")
        try:
            style = check_style(values)
        except UserError as error:
            raise Refused(422, str(error)) from None
        if max(style.length, len(prompt)) > self.limits.characters:
            raise Refused(413, f"a prompt and its text may have {self.limits.characters:,} characters each at most")
        return prompt, style


class Written(StreamingResponse):
    """Counts as one of `writers` until it is over, however it ends."""

    def __init__(self, parts: Iterator[str], writers: Writers, headers: dict[str, str]):
        super().__init__(parts, media_type="text/plain; charset=utf-8", headers={**headers, **NO_SNIFFING})
        self.writers = writers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.writers.count -= 1


def write(predictor: Predictor, prompt: str, style: Style) -> Iterator[str]:
    """The text that goes on from `prompt`, some of it at a time."""
    waiting, sent = "", time.monotonic()
    for (text,) in predictor.processing.write(predictor.network, prompt, style):
        waiting += text
        if time.monotonic() - sent > PAUSE:
            yield waiting
            waiting, sent = "", time.monotonic()
    yield waiting
