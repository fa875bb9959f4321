"""Send malformed requests to serve.py: each must be refused with a 4xx and a reason, and the next good one answered.

    python -m benchmarks.malformed_requests --model_dir experiments/base_model experiments/ner_lstm

For each model a server of its own gets --number requests, made from good ones: photos and JSON that are cut off, wrong
types, unknown fields, invalid UTF-8, JSON of depth 10,000, photos that claim to be huge, other methods and content
types, bodies that are too large. A good request follows each of them.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.hardware import describe_hardware

Request = tuple[str, dict[str, str], bytes]  # method, headers, body
FORM = {"Content-Type": "multipart/form-data; boundary=limit"}
JSON = {"Content-Type": "application/json"}


def as_form(content: bytes, field: str = "file") -> bytes:
    head = f'--limit\r\nContent-Disposition: form-data; name="{field}"; filename="a"\r\n\r\n'
    return head.encode() + content + b"\r\n--limit--\r\n"


def photo(rng: np.random.Generator, style: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(file, style)
    return file.getvalue()


def malformed_photos(rng: np.random.Generator) -> Iterator[Request]:
    while True:
        style = str(rng.choice(["JPEG", "PNG", "WEBP", "GIF", "BMP"]))
        content = photo(rng, style)
        cut = content[: rng.integers(0, max(20, len(content) // 4))]
        png = bytearray(photo(rng, "PNG"))
        png[16:24] = rng.integers(20_000, 2**31).astype(">i4").tobytes() * 2  # width and height in the header
        yield "POST", FORM, as_form(cut)
        yield "POST", FORM, as_form(bytes(png))
        yield "POST", FORM, as_form(rng.bytes(1000))
        yield "POST", FORM, as_form(content)[: -rng.integers(5, 200)]  # the form is cut off
        yield "POST", FORM, as_form(content, field=str(rng.choice(["fil", "photo", "", "\u20ac"])))
        yield "POST", {"Content-Type": "multipart/form-data"}, as_form(content)
        yield "POST", JSON, json.dumps({"inputs": ["/etc/passwd"]}).encode()


def malformed_json(good: Any, rng: np.random.Generator) -> Iterator[Request]:
    text = json.dumps({"inputs": [good]}).encode()
    wrong: list[Any] = [1, None, True, [], {}, [[]], [None], {"a": {}}, "", [1, 2], 1e308, -0.5]
    while True:
        yield "POST", JSON, text[: rng.integers(0, len(text))]  # cut off
        yield "POST", JSON, text.replace(b'"', b'"\xff', 1)
        yield "POST", JSON, b'{"inputs": ' + b"[" * 10_000 + b"]" * 10_000 + b"}"
        yield "POST", JSON, b'{"inputs": [' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"]}"
        yield "POST", JSON, json.dumps({"inputs": [wrong[rng.integers(len(wrong))]]}).encode()
        yield "POST", JSON, json.dumps({"inputs": wrong[rng.integers(len(wrong))]}).encode()
        yield "POST", JSON, json.dumps({"inputs": [good], "input": 1}).encode()
        yield "POST", JSON, json.dumps({"input": [good]}).encode()
        yield "POST", JSON, b'{"inputs": [NaN, Infinity, "\\ud800"]}'
        yield "POST", JSON, b'{"inputs": ["' + b"a" * 100_000 + b'"]}'
        yield "POST", {"Content-Type": "text/plain"}, text
        yield "POST", FORM, as_form(text)


def odd_requests(rng: np.random.Generator) -> Iterator[Request]:
    while True:
        yield str(rng.choice(["PUT", "DELETE", "PATCH"])), JSON, b"{}"
        yield "POST", {**JSON, "Content-Length": str(2**40)}, b"{}"


def send(address: str, request: Request, path: str = "/predict") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address, timeout=60)
    method, headers, body = request
    connection.putrequest(method, path)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    response = connection.getresponse()
    result = response.status, response.read()
    connection.close()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_dir", nargs="+", default=["experiments/base_model"], help="whose weights are served")
    parser.add_argument("--number", type=int, default=500, help="malformed requests for each (%(default)s)")
    parser.add_argument("--seed", type=int, default=230)
    args = parser.parse_args()
    print(describe_hardware())
    for model_dir in args.model_dir:
        command = [sys.executable, "serve.py", "--model_dir", model_dir, "--port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8")
        assert process.stdout is not None
        address = next(re.findall(r"http://(\S+)", line)[0] for line in process.stdout if "Answering at" in line)
        model = json.loads(send(address, ("GET", {}, b""), "/model")[1])
        rng = np.random.default_rng(args.seed)
        if model["accepts"] == "images":
            good = ("POST", FORM, as_form(photo(rng, "JPEG")))
            streams = [malformed_photos(rng), odd_requests(rng)]
        else:
            row = {column["name"]: (column.get("words") or [1])[0] for column in model.get("columns", [])}
            body: Any = row if model["accepts"] == "rows" else "Anna Smith lives in Kent."
            good = ("POST", JSON, json.dumps({"inputs": [body]}).encode())
            streams = [malformed_json(body, rng), odd_requests(rng)]
        statuses: Counter[int] = Counter()
        unexplained, unanswered = [], 0
        for i in range(args.number):
            request = next(streams[int(i % 10 == 9)])
            status, answer = send(address, request)
            statuses[status] += 1
            explained = 400 <= status < 500 and isinstance(json.loads(answer).get("error"), str)
            unexplained += [] if explained else [(status, request[0], request[1], request[2][:100], answer[:200])]
            unanswered += send(address, good)[0] != 200
        process.terminate()
        ended = process.wait()
        found = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))
        print(f"{Path(model_dir).name}: {found}; good requests not answered: {unanswered}; exit status {ended}")
        for case in unexplained:
            print("  not refused with a reason:", case)


if __name__ == "__main__":
    main()
