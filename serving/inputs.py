"""The bytes of a request -> raw inputs. No input can name a file of this machine: photos are `Upload`s, texts are
strings or lists of words, rows are dicts."""

from __future__ import annotations

import io
import json
import math
import re
from typing import Any
from urllib.parse import unquote_to_bytes

from PIL import Image
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from engine.images import Upload
from engine.predicting import Example, Predictor, Unreadable
from serving.limits import Limits, Refused

FIELD = "file"  # of a form, with a photo
EXPECTED = {
    "images": f"photos as multipart/form-data, each in a field called {FIELD}",
    "texts": 'JSON such as {"inputs": ["a text", ["or", "its", "words"]]}',
    "rows": 'JSON such as {"inputs": [{"a column": 1.5, "another": "a word"}]}',
}
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")  # Pillow reads others with the help of programs and temporary files
LARGE = 8_000_000  # pixels; photos with more are decoded one at a time, since each takes hundreds of megabytes
# filename*=UTF-8''a%20name.jpg (RFC 5987), which the parser drops
EXTENDED_NAME = re.compile(rb"filename\*\s*=\s*[\w-]*'[\w-]*'([^;\s]*)", re.IGNORECASE)
SHOWN = 100  # characters of a refused text that its record repeats


def parse(body: bytearray, content_type: str, accepts: str, limits: Limits) -> tuple[list[Any], bool]:
    """The raw inputs in the body of a request, an `Unreadable` in place of one that is of a wrong type or too long; and
    whether the answers are to be explained.

    Raises:
        Refused: the body as a whole is not what was expected.
    """
    kind = content_type.partition(";")[0].strip().lower()
    expected = "multipart/form-data" if accepts == "images" else "application/json"
    if kind != expected:
        raise Refused(415, f"Content-Type: expected {expected}, got {kind[:SHOWN] or 'none'}. {_expected(accepts)}")
    is_form = accepts == "images"
    inputs, explain = (parse_form(body, content_type, limits), False) if is_form else parse_json(body, accepts, limits)
    if not inputs:
        raise Refused(422, f"no inputs. {_expected(accepts)}")
    return inputs, explain


def _expected(accepts: str) -> str:
    return f"Expected {EXPECTED[accepts]}."


def _too_many(limits: Limits) -> Refused:
    return Refused(413, f"a request may have {limits.inputs} inputs at most")


# ------------------------------------------------------------------------------------------------ JSON


def parse_json(body: bytearray, accepts: str, limits: Limits) -> tuple[list[Any], bool]:
    """`inputs` and `explain`. Raises Refused if the body is no JSON (strictly: UTF-8, no NaN), or something else."""
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_no_number, parse_float=_finite)
        if b"\\u" in body:  # may be half a surrogate pair, which is no text
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused(400, f"the body is not UTF-8 (byte {error.start}). {_expected(accepts)}") from None
    except UnicodeEncodeError:
        raise Refused(400, r"a \u escape that is half a surrogate pair. Send both halves, or plain UTF-8.") from None
    except RecursionError:
        raise Refused(400, f"JSON that is nested too deeply. {_expected(accepts)}") from None
    except ValueError as error:
        raise Refused(400, f"not JSON: {error!s:.200}. {_expected(accepts)}") from None
    if not isinstance(value, dict) or not isinstance(value.get("inputs"), list):
        raise Refused(422, _expected(accepts))
    if unknown := sorted(value.keys() - {"inputs", "explain"}):
        raise Refused(422, f"unknown field {unknown[0][:SHOWN]}. {_expected(accepts)}")
    if not isinstance(explain := value.get("explain", False), bool):
        raise Refused(422, "explain: expected true or false")
    if len(value["inputs"]) > limits.inputs:
        raise _too_many(limits)
    check = {"texts": check_text, "rows": check_row}[accepts]
    return [check(item, limits) for item in value["inputs"]], explain


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number in JSON")


def _finite(digits: str) -> float:
    if math.isfinite(number := float(digits)):
        return number
    raise ValueError(f"{digits:.50} is too large a number")


def check_text(value: Any, limits: Limits) -> Any:
    """A text, or a list of words; otherwise Unreadable."""
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return Unreadable(_shown(value), "expected a text, or a list of words")
    return _too_long(value, sum(map(len, words)) + len(words) - 1, limits) or value


def check_row(value: Any, limits: Limits) -> Any:
    """A dict of plain values; otherwise Unreadable."""
    if not isinstance(value, dict):
        return Unreadable(_shown(value), "expected a row: an object that says what stands in each column")
    for name, cell in value.items():
        if isinstance(cell, dict | list):
            return Unreadable(_shown(value), f"{name[:SHOWN]}: expected a number or a word")
    return _too_long(value, sum(len(name) + len(str(cell)) for name, cell in value.items()), limits) or value


def _too_long(value: Any, length: int, limits: Limits) -> Unreadable | None:
    if length <= limits.characters:
        return None
    return Unreadable(_shown(value), f"{length:,} characters; {limits.characters:,} at most")


def _shown(value: Any) -> Any:
    """What a record repeats of a value that is refused: it may be huge, or nested."""
    if value is None or isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**53):
        return value
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    text = str(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


# ------------------------------------------------------------------------------------------------ forms


def parse_form(body: bytearray, content_type: str, limits: Limits) -> list[Upload]:
    """The uploads of a form. Raises Refused if the body is no form, is cut off, or has other fields."""
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not boundary:
        raise Refused(400, f"Content-Type: no boundary. {_expected('images')}")
    form = _Form(limits)
    try:
        parser = MultipartParser(boundary, form.callbacks())
        parser.write(body)  # type: ignore[arg-type]
        parser.finalize()
    except FormParserError as error:
        raise Refused(400, f"not multipart/form-data: {error!s:.200}. {_expected('images')}") from None
    if not form.is_whole:
        raise Refused(400, "the form is cut off: its last boundary is missing")
    return form.uploads


class _Form:
    """Collects the parts of a form as the parser comes to them."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self.uploads: list[Upload] = []
        self.is_whole = False
        self.header, self.value, self.disposition = bytearray(), bytearray(), b""
        self.name = ""
        self.content = bytearray()

    def callbacks(self) -> Any:
        names = "part_begin header_field header_value header_end headers_finished part_data part_end end"
        return {f"on_{name}": getattr(self, f"on_{name}") for name in names.split()}

    def on_part_begin(self) -> None:
        if len(self.uploads) == self.limits.inputs:
            raise _too_many(self.limits)
        self.disposition, self.content = b"", bytearray()

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self.header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def on_header_end(self) -> None:
        if self.header.lower() == b"content-disposition":
            self.disposition = bytes(self.value)
        self.header, self.value = bytearray(), bytearray()

    def on_headers_finished(self) -> None:
        options = parse_options_header(self.disposition)[1]
        field = options.get(b"name", b"").decode("utf-8", errors="replace")
        if field != FIELD:
            raise Refused(422, f"unknown field {field[:SHOWN] or 'without a name'}. {_expected('images')}")
        name = options.get(b"filename")
        if name is None and (found := EXTENDED_NAME.search(self.disposition)):
            name = unquote_to_bytes(found[1])
        if name is None:
            raise Refused(422, f"the field {FIELD} holds a value, but no file. {_expected('images')}")
        self.name = name.decode("utf-8", errors="replace")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.content += data[start:end]

    def on_part_end(self) -> None:
        self.uploads.append(Upload(self.name, bytes(self.content), FORMATS))

    def on_end(self) -> None:
        self.is_whole = True


# ------------------------------------------------------------------------------------------- preprocessing


def preprocess(predictor: Predictor, raw: Any, limits: Limits) -> Example | Unreadable | None:
    """`predictor.preprocess`, after a look at the header of a photo. None for a large one, which is left to decode."""
    if not isinstance(raw, Upload):
        return predictor.preprocess(raw)
    pixels = count_pixels(raw, limits)
    if isinstance(pixels, Unreadable):
        return pixels
    return predictor.preprocess(raw) if pixels <= LARGE else None


def count_pixels(upload: Upload, limits: Limits) -> int | Unreadable:
    """Read the header of a photo."""
    try:
        with Image.open(io.BytesIO(upload.content), formats=upload.formats) as image:
            pixels = image.width * image.height
    except Image.DecompressionBombError:
        pixels = limits.pixels + 1
    except Exception:  # whatever is wrong in there, the file cannot be read
        return Unreadable(upload.name, f"not a photo: expected a file in one of the formats {', '.join(FORMATS)}")
    if pixels > limits.pixels:
        return Unreadable(upload.name, f"too many pixels: a photo may have {limits.pixels:,}")
    return pixels
