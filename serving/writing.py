"""POST /write: text that appears while a language model writes it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from starlette.responses import StreamingResponse

from engine.predicting import Predictor
from engine.writing import style_of
from serving.limits import Limits, Refused
from utils import UserError

EXPECTED = 'Expected JSON such as {"prompt": "ROMEO:", "length": 500, "temperature": 0.8}.'
PAUSE = 0.03  # seconds between two parts that are sent


class Writers:
    """Those who write at the moment, each in a thread of its own."""

    def __init__(self, limits: Limits):
        self.limits, self.count = limits, 0

    def answer(self, predictor: Predictor, body: bytes | bytearray) -> StreamingResponse:
        """A response whose body is text, in parts as it is written. Raises Refused."""
        prompt, style = self.parse(predictor, body)
        if self.count >= self.limits.writers:
            raise Refused(429, f"{self.count} texts are being written; try again in a second")
        return StreamingResponse(self.write(predictor, prompt, style), media_type="text/plain; charset=utf-8")

    def parse(self, predictor: Predictor, body: bytes | bytearray) -> tuple[str, Any]:
        """The beginning, and how to go on. Raises Refused."""
        try:
            values = json.loads(body)
        except (ValueError, RecursionError):
            raise Refused(400, f"not JSON. {EXPECTED}") from None
        if not isinstance(values, dict) or not isinstance(prompt := values.pop("prompt", None), str):
            raise Refused(422, EXPECTED)
        style: Any = predictor.processing.style
        if unknown := sorted(values.keys() - set(style._fields if style else ())):
            raise Refused(422, f"unknown field {unknown[0]:.100}. {EXPECTED}")
        try:
            prompt.encode()
            style = style_of(predictor.processing, values)
        except UnicodeEncodeError:
            raise Refused(400, r"a \u escape that is half a surrogate pair. Send both, or UTF-8.") from None
        except UserError as error:
            raise Refused(422, str(error)) from None
        if max(style.length, len(prompt)) > self.limits.characters:
            raise Refused(413, f"a prompt and its text may have {self.limits.characters:,} characters each at most")
        return prompt, style

    def write(self, predictor: Predictor, prompt: str, style: Any) -> Iterator[str]:
        """The text that goes on from `prompt`, some of it at a time."""
        self.count += 1
        try:
            waiting, sent = "", time.monotonic()
            for (text,) in predictor.processing.write(predictor.network, prompt, style):
                waiting += text
                if time.monotonic() - sent > PAUSE:
                    yield waiting
                    waiting, sent = "", time.monotonic()
            yield waiting
        finally:
            self.count -= 1
