"""serve.py: what it answers, what it refuses, how it ends, and its page."""

# ruff: noqa: E402 (imports that need what may not be installed come behind the check)

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import types
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

for needed in ("fastapi", "uvicorn", "python_multipart", "httpx"):
    pytest.importorskip(needed)

import uvicorn
from starlette.requests import Request
from starlette.testclient import TestClient

from engine.answers import Record
from engine.predicting import About, Example, Predictor
from engine.texts import TextProcessing
from model.text.highlight import color, highlight
from model.text_classification.report import shorten
from predict import load_predictor
from serving import inputs as serving_inputs
from serving import weights as serving_weights
from serving.app import App
from serving.limits import Limits, Refused
from serving.server import Server
from serving.weights import Weights
from tests.browser import MISSING, open_browser
from tests.conftest import ROOT, refused, run, write_params
from tests.helpers import draw_photo
from utils import UserError


class FakeTexts(TextProcessing):
    """A tagger without a network: capital letters begin names, and the word "fail" is a bug."""

    def preprocess(self, raw: Any) -> Example:
        words = re.findall(r"[\w-]+|\S", raw) if isinstance(raw, str) else raw
        if not words:
            raise UserError("no words in it")
        return Example(raw, words, len(words))

    def collate(self, contents: Sequence[Any]) -> Any:
        if any("fail" in words for words in contents):
            raise RuntimeError("a bug")
        return np.array([len(words) for words in contents])

    def postprocess(self, outputs: Mapping[str, np.ndarray]) -> list[Record]:
        return [{"prediction": [], "probability": 0.5} for _ in outputs["outputs"]]

    def complete(self, example: Example, record: Record) -> Record:
        text, spans, at = example.input, [], 0
        kinds = {"Anna": "per", "Zoë": "per", "Karl-Heinz": "per", "Acme": "org"}
        tags = []
        for i, word in enumerate(example.content):
            kind = kinds.get(word, "geo") if word[:1].isupper() and word != "Yesterday" else ""
            if isinstance(text, str):
                at = text.index(word, at)
                if kind:
                    place = {"text": word, "start": at, "end": at + len(word), "words": [i, i + 1]}
                    spans.append({"type": kind, **place})
                at += len(word)
            tags.append(f"B-{kind}" if kind else "O")
        sure = [0.9] * len(tags)
        more = {"words": example.content, "tag_probabilities": sure, "spans": spans}
        return {"input": text, **record, "prediction": tags, **more}


def fake_texts(network: Callable[[Any], dict[str, np.ndarray]] | None = None, batch_size: int = 32) -> Predictor:
    data = types.SimpleNamespace(tags=["O", "B-per", "I-per", "B-geo", "B-org"])
    params = types.SimpleNamespace(batch_size=batch_size, data=data)
    return Predictor(
        "sequence_tagging", FakeTexts(params), network or (lambda lengths: {"outputs": lengths}), About("fake.pt", 3)
    )


@contextlib.contextmanager
def serving_at(app: Any) -> Iterator[str]:
    """The address of a server in a thread of this process."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(uvicorn.Config(app, log_config=None, ws="none"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def photo(size: tuple[int, int] = (40, 30), format: str = "JPEG") -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, format)
    return file.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header says that it is large, and nothing else."""
    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\x00\x00\x00"
    data = b"IDAT" + zlib.compress(bytes(100))
    chunks = [(len(c) - 4).to_bytes(4, "big") + c + zlib.crc32(c).to_bytes(4, "big") for c in (header, data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def form(*contents: bytes, field: str = "file") -> dict[str, Any]:
    """What httpx sends as a form: an upload for each of `contents`."""
    return {"files": [(field, (f"{i}.jpg", content)) for i, content in enumerate(contents)]}


def as_form(*contents: bytes) -> tuple[bytes, dict[str, str]]:
    """The same, as a body and its headers."""
    disposition = b'Content-Disposition: form-data; name="file"; filename="a.jpg"'
    parts = b"".join(b"--limit\r\n" + disposition + b"\r\n\r\n" + content + b"\r\n" for content in contents)
    return parts + b"--limit--\r\n", {"Content-Type": "multipart/form-data; boundary=limit"}


def open_client(app: App) -> TestClient:
    return TestClient(app, raise_server_exceptions=False)


@pytest.fixture(scope="module")
def images(trained: Path) -> Iterator[TestClient]:
    with open_client(App(Weights(trained, lambda: load_predictor(trained, top=10)), Limits(), 64)) as client:
        yield client


@pytest.fixture(scope="module")
def texts() -> Iterator[TestClient]:
    with open_client(App(Weights(Path("fake"), fake_texts), Limits(characters=1000), 64)) as client:
        yield client


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained experiment whose rows are a number and a word."""
    folder = tmp_path_factory.mktemp("table")
    rows = "".join(f"{i},{'Kent' if i % 2 else 'Bath'},{'yes' if i > 30 else 'no'}\n" for i in range(60))
    (folder / "table.csv").write_text("size,town,sold\n" + rows, encoding="utf-8")
    words = ["--task", "tabular_prediction", "--data_dir", folder / "table.csv", "--output_dir", folder / "built"]
    assert run("build_dataset", *words).status == 0
    values = {"task": "tabular_prediction", "data_dir": str(folder / "built"), "learning_rate": 0.05, "num_epochs": 2}
    (folder / "experiment").mkdir()
    (folder / "experiment" / "params.json").write_text(json.dumps(values), encoding="utf-8")
    assert run("train", "--model_dir", folder / "experiment").status == 0
    return folder / "experiment"


@pytest.fixture(scope="module")
def rows(table: Path) -> Iterator[TestClient]:
    with open_client(App(Weights(table, lambda: load_predictor(table, top=10)), Limits(), 64)) as client:
        yield client


def refused_with(response: Any, status: int, *words: str) -> None:
    """The status, and the one shape of all errors, with a message that says all of `words`."""
    assert response.status_code == status, response.text
    message = response.json()["error"]
    for word in words:
        assert word in message, message


# -------------------------------------------------------------------------------------------- answers


def test_photos(images: TestClient, trained: Path) -> None:
    """They are answered in order, as the predictor answers them; one that cannot be read fails alone."""
    good, other = photo(), photo((16, 16), "PNG")
    response = images.post("/predict", **form(good, b"no photo", other, good[:300]))
    assert response.status_code == 200
    first, bad, second, truncated = response.json()["predictions"]
    assert [record["input"] for record in (first, bad, second, truncated)] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    expected = load_predictor(trained, top=10)([good, other])
    for record, wanted in zip((first, second), expected, strict=True):
        assert record["prediction"] == wanted["prediction"]
        assert record["probabilities"] == pytest.approx(wanted["probabilities"], abs=0.02)  # of another batch
    assert "expected a file in one of the formats JPEG, PNG" in bad["error"]
    assert set(truncated) == {"input", "error"}
    refused_with(images.post("/predict", **form(b"no photo")), 422, "0.jpg", "not a photo")
    refused_with(images.post("/predict", **form(b"", b"x")), 422, "none of 2 inputs")


def test_texts(texts: TestClient) -> None:
    response = texts.post("/predict", json={"inputs": ["Anna lives", ["in", "London"], "", 5, ["a", 1], "🏴 Zoë"]})
    assert response.status_code == 200
    anna, london, empty, number, mixed, flag = response.json()["predictions"]
    assert anna["prediction"] == ["B-per", "O"]
    assert anna["spans"] == [{"type": "per", "text": "Anna", "start": 0, "end": 4, "words": [0, 1]}]
    assert london["words"] == ["in", "London"]
    assert empty == {"input": "", "error": "no words in it"}
    assert number == {"input": 5, "error": "expected a text, or a list of words"}
    assert mixed == {"input": "a list", "error": "expected a text, or a list of words"}
    assert flag["input"] == "🏴 Zoë"


def test_rows(rows: TestClient) -> None:
    good = {"size": 50, "town": "Kent", "colour": "red"}
    bad = [{"size": "big", "town": "Kent"}, {"size": 1}, "Kent", {"size": [1]}]
    inputs = [good, {"size": "", "town": "Nowhere"}, *bad]
    response = rows.post("/predict", json={"inputs": inputs})
    assert response.status_code == 200
    first, empty, word, missing, text, nested = response.json()["predictions"]
    assert first["input"] == good
    assert first["prediction"] in ("yes", "no")
    assert sum(first["probabilities"].values()) == pytest.approx(1)
    assert "error" not in empty
    assert "big in the column size, which holds numbers" in word["error"]
    assert "no value for town" in missing["error"]
    assert "expected a row" in text["error"]
    assert "expected a number or a word" in nested["error"]


def test_what_was_trained(images: TestClient, texts: TestClient, rows: TestClient) -> None:
    model = images.get("/model").json()
    assert model["task"] == "image_classification"
    assert model["accepts"] == "images"
    assert model["classes"] == ["0", "1", "2"]
    assert model["weights"] == Path(model["weights"]).name
    assert model["metrics"]["accuracy"] >= 0
    assert texts.get("/model").json()["tag_types"] == ["geo", "org", "per"]
    size, town = rows.get("/model").json()["columns"]
    assert size["name"] == "size"
    assert size["kind"] == "number"
    assert town == {"name": "town", "kind": "word", "words": ["Bath", "Kent"]}
    assert rows.get("/health").json() == {"status": "ok"}


def test_the_schema(images: TestClient, texts: TestClient, rows: TestClient) -> None:
    """It describes what these weights take, and every reference in it leads somewhere."""
    for client, kind in ((images, "multipart/form-data"), (texts, "application/json"), (rows, "application/json")):
        schema = client.get("/openapi.json").json()
        assert kind in schema["paths"]["/predict"]["post"]["requestBody"]["content"]
        for name in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(schema)):
            assert name in schema["components"]["schemas"]
        assert {"/health", "/model", "/"} <= schema["paths"].keys()
    example = schema["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert rows.post("/predict", json=example).status_code == 200
    page = images.get("/docs").text
    assert "swagger" in page
    assert "'openapi.json'" in page  # relative to the path that a proxy may give the server


# --------------------------------------------------------------------------------------- explanations


@pytest.fixture(scope="module")
def critics(reviews: Path) -> Iterator[TestClient]:
    with open_client(App(Weights(reviews, lambda: load_predictor(reviews, top=10)), Limits(), 64)) as client:
        yield client


def test_explained_answers(critics: TestClient, reviews: Path) -> None:
    texts = ["A dull film.", ["very", "good"], ""]
    plain, without, explained = (
        critics.post("/predict", json={"inputs": texts, **more}).json()["predictions"]
        for more in ({}, {"explain": False}, {"explain": True})
    )
    assert plain == without
    assert "words" not in plain[0]
    assert explained[0]["words"] == ["A", "dull", "film", "."]
    assert explained[1]["word_spans"] == [[0, 4], [5, 9]]
    expected = load_predictor(reviews).explaining(texts[:2])
    for record, wanted in zip(explained, expected, strict=False):
        assert record["influence"] == pytest.approx(wanted["influence"], abs=0.01)
    assert explained[2] == {"input": "", "error": "no word in it"}


def test_only_some_weights_explain(
    critics: TestClient, texts: TestClient, images: TestClient, rows: TestClient
) -> None:
    assert critics.get("/model").json()["explains"] is True
    schema = request_schema(critics)
    assert schema["properties"]["explain"]["type"] == "boolean"
    assert schema["required"] == ["inputs"]
    for client in (texts, rows):
        assert "explains" not in client.get("/model").json()
        assert request_schema(client)["properties"].keys() == {"inputs"}
        inputs = ["Anna"] if client is texts else [{"size": 1, "town": ""}]
        response = client.post("/predict", json={"inputs": inputs, "explain": True})
        refused_with(response, 422, "explain: these weights cannot")
        assert client.post("/predict", json={"inputs": inputs, "explain": False}).status_code == 200
    assert "explains" not in images.get("/model").json()
    refused_with(images.post("/predict", **form(photo(), field="explain")), 422, "unknown field explain")


def request_schema(client: TestClient) -> Any:
    post = client.get("/openapi.json").json()["paths"]["/predict"]["post"]
    return post["requestBody"]["content"]["application/json"]["schema"]


@pytest.mark.parametrize("value", ["yes", 1, None, [True]])
def test_an_explanation_is_wanted_or_not(critics: TestClient, texts: TestClient, value: Any) -> None:
    for client in (critics, texts):
        response = client.post("/predict", json={"inputs": ["a"], "explain": value})
        refused_with(response, 422, "explain: expected true or false")


def test_explained_and_plain_requests_wait_together(reviews: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is answered as it asked."""
    app = App(Weights(reviews, lambda: load_predictor(reviews)), Limits(), 64)
    network: Any = app.batcher.predictor.network
    gate, kinds = threading.Event(), []
    real = network.net.embed

    def embed(inputs: Any) -> Any:
        assert gate.wait(30)
        kinds.append(len(inputs["words"]))
        return real(inputs)

    monkeypatch.setattr(network.net, "embed", embed)
    wanted = [True, True, False, False, True, False]
    responses: list[Any] = [None] * len(wanted)

    def post(i: int) -> None:
        responses[i] = client.post("/predict", json={"inputs": [f"film {i}"], "explain": wanted[i]})

    with open_client(app) as client:
        threads = [threading.Thread(target=post, args=(i,)) for i in range(len(wanted))]
        for i, thread in enumerate(threads):
            thread.start()
            end = time.monotonic() + 30
            while len(app.batcher.queue) < i or app.batcher.num_unanswered <= i:  # the first is being computed
                assert time.monotonic() < end
                time.sleep(0.01)
        gate.set()
        for thread in threads:
            thread.join()
    records = [response.json()["predictions"][0] for response in responses]
    assert [record["input"] for record in records] == [f"film {i}" for i in range(len(wanted))]
    assert ["influence" in record for record in records] == wanted
    assert 2 in kinds  # neighbours that want the same are one batch


# ------------------------------------------------------------------------------------------- refusals


DEEP = b"[" * 10_000 + b"]" * 10_000


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "not JSON"),
        (b"{", 400, "not JSON"),
        (b'{"inputs": ["caf\xe9"]}', 400, "not UTF-8 (byte 16)"),
        (b'{"inputs": ["\\ud800"]}', 400, "surrogate"),
        (b'{"inputs": [{"\\udfff": 1}]}', 400, "surrogate"),
        (b'{"inputs": [NaN]}', 400, "NaN"),
        (b'{"inputs": [{"a": -Infinity}]}', 400, "-Infinity"),
        (b'{"inputs": [{"a": 1e999}]}', 400, "too large a number"),
        (b'{"inputs": [' + b"9" * 5000 + b"]}", 400, "not JSON"),
        (DEEP, 400, "nested too deeply"),
        (b'{"inputs": [' + DEEP + b"]}", 400, "nested too deeply"),
        (b'{"inputs": [{"size": ' + b"[" * 900 + b"]" * 900 + b', "town": ""}]}', 422, "expected a"),
        (b'{"inputs": ' + b"[" * 900 + b"]" * 900 + b"}", 422, "expected a"),
        (b"[]", 422, "Expected JSON such as"),
        (b"null", 422, "Expected JSON such as"),
        (b'{"inputs": "text"}', 422, "Expected JSON such as"),
        (b'{"inputs": []}', 422, "no inputs"),
        (b'{"inputs": [1], "model": "other"}', 422, "unknown field model"),
        (b'{"inputs": [true, null, 1.5]}', 422, "none of 3 inputs"),
        (b'{"inputs": [' + b"1," * 64 + b"1]}", 413, "64 inputs at most"),
    ],
)
def test_a_body_that_is_not_as_expected(
    texts: TestClient, rows: TestClient, body: bytes, status: int, words: str
) -> None:
    for client in (texts, rows):
        response = client.post("/predict", content=body, headers={"Content-Type": "application/json"})
        refused_with(response, status, words)
    assert texts.post("/predict", json={"inputs": ["Anna"]}).status_code == 200
    assert rows.post("/predict", json={"inputs": [{"size": 1, "town": ""}]}).status_code == 200


def test_a_form_that_is_not_as_expected(images: TestClient) -> None:
    body, headers = as_form(photo())

    def post(body: bytes, headers: dict[str, str] = headers) -> Any:
        return images.post("/predict", content=body, headers=headers)

    assert post(body).status_code == 200
    refused_with(post(body[:-10]), 400, "cut off")
    refused_with(post(body[:60]), 400, "cut off")
    refused_with(post(b""), 400, "cut off")
    refused_with(post(b"nothing of the kind"), 400, "not multipart/form-data")
    refused_with(post(b"--limit--\r\n"), 422, "no inputs")
    refused_with(post(body, {"Content-Type": "multipart/form-data"}), 400, "no boundary")
    refused_with(post(body, {"Content-Type": "multipart/form-data; boundary=" + "x" * 1000}), 400, "oundary")
    refused_with(post(body.replace(b'"file"', b'"photo"')), 422, "unknown field photo")
    refused_with(post(body.replace(b'; name="file"', b"")), 422, "unknown field without a name")
    refused_with(post(body.replace(b'; filename="a.jpg"', b"")), 422, "holds a value, but no file")
    refused_with(images.post("/predict", **form(*[b"x"] * 65)), 413, "64 inputs at most")


def test_names_of_uploads_are_only_names(images: TestClient) -> None:
    """A path in one opens no file, and bytes that are no text do no harm."""
    body, headers = as_form(b"x")
    for name in (b"/etc/passwd", b"../../serve.py", b"\xff\xfe", b"", "Zoë 🏴".encode()):
        response = images.post("/predict", content=body.replace(b"a.jpg", name), headers=headers)
        refused_with(response, 422, "not a photo")
        assert response.json()["predictions"][0]["input"] == name.decode("utf-8", errors="replace")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"filename*=UTF-8''name.jpg", "name.jpg"),
        (b"FileName* = utf-8'de'Zo%C3%AB%20%3B.jpg; more=1", "Zoë ;.jpg"),
        (b"filename=\"a.jpg\"; filename*=UTF-8''b.jpg", "a.jpg"),
    ],
)
def test_extended_names(images: TestClient, name: bytes, expected: str) -> None:
    """Some clients send the name of an upload in the form for other alphabets."""
    body, headers = as_form(photo())
    response = images.post("/predict", content=body.replace(b'filename="a.jpg"', name), headers=headers)
    assert response.status_code == 200
    assert response.json()["predictions"][0]["input"] == expected


def test_content_types(images: TestClient, texts: TestClient) -> None:
    body, headers = as_form(photo())
    refused_with(images.post("/predict", json={"inputs": ["a.jpg"]}), 415, "expected multipart/form-data")
    refused_with(texts.post("/predict", content=body, headers=headers), 415, "expected application/json, got multipart")
    refused_with(texts.post("/predict", content=b'{"inputs": ["a"]}'), 415, "got none")
    headers = {"Content-Type": "application/JSON; charset=utf-8"}
    assert texts.post("/predict", content=b'{"inputs": ["a"]}', headers=headers).status_code == 200


def test_addresses(texts: TestClient) -> None:
    refused_with(texts.get("/nowhere"), 404, "/nowhere: no such address", "/predict")
    refused_with(texts.post("/predict/", json={}), 404, "no such address")
    response = texts.get("/predict")
    refused_with(response, 405, "expected POST, got GET")
    assert response.headers["allow"] == "POST"
    refused_with(texts.post("/health"), 405, "expected GET, got POST")


@pytest.mark.parametrize("path", ["/", "/health", "/model", "/docs"])
def test_head(texts: TestClient, path: str) -> None:
    """The headers that GET has, for programs that only want to know whether there is an answer."""
    response, whole = texts.head(path), texts.get(path)
    assert response.status_code == 200
    assert response.headers == whole.headers
    assert response.content == b""


def test_hosts() -> None:
    """A page of another site whose name leads to this machine cannot ask a server that is for this machine only."""
    local, open_to_all = (App(Weights(Path("fake"), fake_texts), Limits(), 64, only) for only in (True, False))
    ours = ["localhost", "localhost:8000", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:8000", "[::1]", "[::1]:8000"]
    others = ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example:80", "10.0.0.1:80"]
    with open_client(local) as client:
        for host in ours:
            assert client.get("/model", headers={"Host": host}).status_code == 200, host
            response = client.post("/predict", json={"inputs": ["a"]}, headers={"Host": host})
            assert response.status_code == 200, host
        for host in [*others, "", "[::1", "::2", "x" * 1000]:
            for path in ("/", "/model", "/docs", "/nowhere"):
                refused_with(client.get(path, headers={"Host": host}), 421, "Host: expected localhost", host[:100])
            response = client.post("/predict", json={"inputs": ["a"]}, headers={"Host": host})
            refused_with(response, 421, "Host: expected localhost", host[:100])
    with open_client(open_to_all) as client:
        for host in ours + others:
            response = client.post("/predict", json={"inputs": ["a"]}, headers={"Host": host})
            assert response.status_code == 200, host


def test_an_address_that_is_added_refuses_in_the_same_shape() -> None:
    app = App(Weights(Path("fake"), fake_texts), Limits(), 64)

    @app.get("/double")
    def double(number: int) -> int:
        return 2 * number

    with open_client(app) as client:
        refused_with(client.get("/double?number=x"), 422, "query.number", "integer")


# --------------------------------------------------------------------------------------------- limits


def test_a_body_that_is_too_large(texts: TestClient, images: TestClient) -> None:
    """By its Content-Length, and without one as soon as more has come."""
    app = App(Weights(Path("fake"), fake_texts), Limits(body_bytes=1000), 64)
    sent = 0

    def stream() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 100
            yield b" " * 100

    with open_client(app) as client:
        headers = {"Content-Type": "application/json"}
        refused_with(client.post("/predict", content=b" " * 1001, headers=headers), 413, "1,000 bytes at most")
        refused_with(client.post("/predict", content=stream(), headers=headers), 413, "1,000 bytes at most")
        assert client.post("/predict", json={"inputs": ["a"]}).status_code == 200
        assert app.bodies.held == 0


def test_bodies_that_together_are_too_large() -> None:
    app = App(Weights(Path("fake"), fake_texts), Limits(held_bytes=1000), 64)
    with open_client(app) as client:
        app.bodies.held = 990
        response = client.post("/predict", json={"inputs": ["a text"]})
        refused_with(response, 429, "too many large requests")
        assert response.headers["retry-after"] == "1"
        app.bodies.held = 0
        assert client.post("/predict", json={"inputs": ["a text"]}).status_code == 200
        assert app.bodies.held == 0


def test_a_body_that_does_not_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the body has a time limit: whatever else runs out of time is a bug."""
    app = App(Weights(Path("fake"), fake_texts), Limits(seconds=0.01), 64)

    async def receive() -> Any:
        await asyncio.sleep(30)

    async def read() -> None:
        scope = {"type": "http", "method": "POST", "path": "/predict", "headers": []}
        async with app.bodies.read(Request(scope, receive)):
            pytest.fail("a body")

    with pytest.raises(Refused, match="did not arrive within"):
        asyncio.run(read())

    async def answer(*_: Any) -> Any:
        raise asyncio.TimeoutError

    monkeypatch.setattr(app.batcher, "answer", answer)
    app.bodies.limits = Limits()
    with open_client(app) as client:
        refused_with(client.post("/predict", json={"inputs": ["a"]}), 500, "a bug in the server")
    assert app.bodies.held == 0


def test_a_text_that_is_too_long(texts: TestClient) -> None:
    long = "x" * 1001
    response = texts.post("/predict", json={"inputs": [long, ["a"] * 600, "fine", {"a": 1}]})
    assert response.status_code == 200
    records = response.json()["predictions"]
    assert records[0] == {"input": "x" * 100 + "…", "error": "1,001 characters; 1,000 at most"}
    assert records[1] == {"input": "a list", "error": "1,199 characters; 1,000 at most"}
    assert "error" not in records[2]


def test_a_row_that_is_too_long(rows: TestClient) -> None:
    response = rows.post("/predict", json={"inputs": [{"size": 1, "town": "x" * 20_000}]})
    refused_with(response, 422, "10,000 at most")
    assert len(response.content) < 1000


@pytest.mark.parametrize("size", [(9000, 9000), (20_000, 20_000), (2**31 - 1, 2**31 - 1)])
def test_a_decompression_bomb(
    images: TestClient, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """It is refused from its header: nothing is decoded."""
    monkeypatch.setattr(Image.Image, "resize", lambda *_: pytest.fail("decoded"))
    refused_with(images.post("/predict", **form(bomb(*size))), 422, "a photo may have 64,000,000")


def test_other_formats_of_pillow_are_refused(images: TestClient) -> None:
    """Pillow reads EPS with the help of another program and of files."""
    for content in (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", photo(format="TIFF")):
        refused_with(images.post("/predict", **form(content)), 422, "not a photo")


def test_what_is_decoded_is_what_passed_the_limits(images: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow may know other formats that claim the same file; none of them gets to read it."""
    opened = []

    def accept(prefix: bytes) -> bool:
        return prefix.startswith(b"\x89PNG")

    def claim(file: Any, name: Any) -> Any:
        opened.append(file)
        raise SyntaxError("not for uploads")

    monkeypatch.setitem(Image.OPEN, "OTHER", (claim, accept))
    monkeypatch.setattr(Image, "ID", ["OTHER", *Image.ID])
    response = images.post("/predict", **form(photo(format="PNG")))
    assert response.status_code == 200
    assert response.json()["predictions"][0]["input"] == "0.jpg"
    assert opened == []


def test_large_photos_are_decoded_one_at_a_time(images: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_inputs, "LARGE", 1000)
    together, most = 0, 0
    predictor = images.app.batcher.predictor  # type: ignore[attr-defined]
    real = predictor.preprocess

    def preprocess(raw: Any) -> Any:
        nonlocal together, most
        together += 1
        most = max(most, together)
        time.sleep(0.01)
        together -= 1
        return real(raw)

    monkeypatch.setattr(predictor, "preprocess", preprocess)
    assert images.post("/predict", **form(*[photo((60, 60))] * 8)).status_code == 200
    assert most == 1


@contextlib.contextmanager
def posting(client: TestClient, **request: Any) -> Iterator[list[Any]]:
    """Post meanwhile; at the end of the block wait for the response, which the list then holds."""
    responses: list[Any] = []
    thread = threading.Thread(target=lambda: responses.append(client.post("/predict", **request)))
    thread.start()
    try:
        yield responses
    finally:
        thread.join()


def test_a_small_photo_does_not_wait_for_large_ones(images: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_inputs, "LARGE", 1000)
    predictor = images.app.batcher.predictor  # type: ignore[attr-defined]
    real, began, go = predictor.preprocess, threading.Event(), threading.Event()

    def preprocess(upload: Any) -> Any:
        if Image.open(io.BytesIO(upload.content)).width == 60:
            began.set()
            assert go.wait(30)
        return real(upload)

    monkeypatch.setattr(predictor, "preprocess", preprocess)
    with posting(images, **form(*[photo((60, 60))] * 64)) as large:
        assert began.wait(30)
        with posting(images, **form(photo((20, 20)))) as small:
            end = time.monotonic() + 20
            while not small and time.monotonic() < end:
                time.sleep(0.01)
            is_answered = bool(small)
            go.set()
    assert is_answered
    assert small[0].status_code == large[0].status_code == 200


def test_one_request_does_not_fill_the_pool_before_others() -> None:
    """Of its many inputs only some are read at a time, so that an input of another request is read soon."""
    app = App(Weights(Path("fake"), fake_texts), Limits(), 64)
    go, read = threading.Event(), []
    real = app.batcher.predictor.preprocess

    def preprocess(raw: Any) -> Any:
        assert go.wait(30)
        read.append(raw)
        return real(raw)

    app.batcher.predictor.preprocess = preprocess  # type: ignore[method-assign]
    with open_client(app) as client, posting(client, json={"inputs": ["many"] * 64}):
        while app.batcher.num_unanswered < 64:
            time.sleep(0.01)
        with posting(client, json={"inputs": ["one"]}):
            while app.batcher.num_unanswered < 65:
                time.sleep(0.01)
            go.set()
    assert len(read) == 65
    assert read.index("one") <= 2 * app.batcher.at_once


class Writes:
    """Files that this process opens to write, while this is active."""

    def __init__(self) -> None:
        self.is_active = False
        self.paths: list[str] = []
        sys.addaudithook(self.hear)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.is_active and event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            self.paths.append(str(arguments[0]))
        if self.is_active and event.startswith("tempfile"):
            self.paths.append(event)


def test_uploads_are_not_written_to_disk(images: TestClient, tmp_path: Path) -> None:
    large = photo((2000, 1500), "PNG")
    assert len(large) > 5_000_000
    writes = Writes()
    writes.is_active = True
    response = images.post("/predict", **form(large, large))
    writes.is_active = False
    assert response.status_code == 200
    assert "error" not in response.json()["predictions"][1]
    assert writes.paths == []
    writes.is_active = True
    (tmp_path / "file").write_bytes(b"")
    writes.is_active = False
    assert writes.paths == [str(tmp_path / "file")]  # it would have been heard


# ------------------------------------------------------------------------------------------- batching


class Gate:
    """A network that waits until `go` is set, and notes how large its batches are."""

    def __init__(self) -> None:
        self.go, self.began = threading.Event(), threading.Event()
        self.sizes: list[int] = []

    def __call__(self, lengths: Any) -> dict[str, np.ndarray]:
        self.sizes.append(len(lengths))
        self.began.set()
        assert self.go.wait(30)
        return {"outputs": lengths}


def post_together(
    client: TestClient, requests: Sequence[Any], gate: Gate, app: App, before_go: Callable[[], None] | None = None
) -> list[Any]:
    """Send requests while the network is busy with the first; let it go on when all of them wait."""
    responses: list[Any] = [None] * len(requests)

    def post(i: int) -> None:
        responses[i] = client.post("/predict", json={"inputs": requests[i]})

    threads = [threading.Thread(target=post, args=(i,)) for i in range(len(requests))]
    threads[0].start()
    assert gate.began.wait(30)
    for thread in threads[1:]:
        thread.start()
    end = time.monotonic() + 30
    while len(app.batcher.queue) < sum(map(len, requests[1:])):
        assert time.monotonic() < end
        time.sleep(0.01)
    if before_go is not None:
        before_go()
    gate.go.set()
    for thread in threads:
        thread.join()
    return responses


@pytest.mark.parametrize(
    ("num_waiting", "max_batch", "sizes"),
    [(8, 64, [1, 8]), (8, 4, [1, 4, 4]), (7, 64, [1, 4, 2, 1]), (3, 1, [1, 1, 1, 1])],
)
def test_requests_that_wait_together_are_one_batch(num_waiting: int, max_batch: int, sizes: list[int]) -> None:
    """A request that comes alone waits for no other; those that come meanwhile are computed together."""
    gate = Gate()
    app = App(Weights(Path("fake"), lambda: fake_texts(gate)), Limits(), max_batch)
    with open_client(app) as client:
        texts = [[f"text {i}"] for i in range(num_waiting - 2)]
        responses = post_together(client, [["first"], *texts, ["two", "more"]], gate, app)
    assert gate.sizes == sizes
    assert [response.status_code for response in responses] == [200] * num_waiting
    assert responses[1].json()["predictions"][0]["input"] == "text 0"
    assert [record["input"] for record in responses[-1].json()["predictions"]] == ["two", "more"]


def test_too_many_wait() -> None:
    gate = Gate()
    app = App(Weights(Path("fake"), lambda: fake_texts(gate)), Limits(waiting=3), 64)
    with open_client(app) as client:
        threads = [threading.Thread(target=client.post, args=("/predict",), kwargs={"json": {"inputs": ["a", "b"]}})]
        threads[0].start()
        assert gate.began.wait(30)
        response = client.post("/predict", json={"inputs": ["c", "d"]})
        gate.go.set()
        threads[0].join()
        refused_with(response, 429, "2 inputs are waiting")
        assert client.post("/predict", json={"inputs": ["c", "d"]}).status_code == 200
        assert app.batcher.num_unanswered == 0


def test_a_bug_spoils_its_own_request_only(caplog: pytest.LogCaptureFixture) -> None:
    """The log says what happened, and the server goes on."""
    gate = Gate()
    app = App(Weights(Path("fake"), lambda: fake_texts(gate)), Limits(), 64)
    with open_client(app) as client:
        first, bad, good = post_together(client, [["first"], ["fail"], ["fine"]], gate, app)
        assert first.status_code == good.status_code == 200
        refused_with(bad, 500, "a bug in the server")
        assert "RuntimeError: a bug" in caplog.text
        assert client.post("/predict", json={"inputs": ["fine"]}).status_code == 200


def test_a_bug_spoils_its_own_input_only(caplog: pytest.LogCaptureFixture) -> None:
    """The other inputs of its request are answered, unless it has no others."""
    app = App(Weights(Path("fake"), fake_texts), Limits(), 64)
    with open_client(app) as client:
        response = client.post("/predict", json={"inputs": ["fine", "fail", ["fail"], ""]})
        assert response.status_code == 200
        fine, bad, words, empty = response.json()["predictions"]
        assert "prediction" in fine
        assert bad == {"input": "fail", "error": "a bug in the server; its log says more"}
        assert "a bug in the server" in words["error"]
        assert empty["error"] == "no words in it"
        assert caplog.text.count("RuntimeError: a bug") == 2
        refused_with(client.post("/predict", json={"inputs": ["fail", "fail"]}), 500, "a bug in the server")
        assert caplog.text.count("RuntimeError: a bug") == 3


@pytest.mark.parametrize("where", ["_take", "_compute"])
def test_a_bug_that_ends_computing(where: str, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """No request waits for ever, and whoever asks for the server's health learns of it."""
    app = App(Weights(Path("fake"), fake_texts), Limits(), 64)

    def fail(*_: Any) -> None:
        raise RuntimeError("a bug in batches")

    async def answer(*request: Any) -> Any:
        try:
            return await asyncio.wait_for(real(*request), 20)
        except asyncio.TimeoutError:
            raise Refused(504, "a request waits for ever") from None

    real = app.batcher.answer
    monkeypatch.setattr(app.batcher, "answer", answer)
    with open_client(app) as client:
        assert client.get("/health").status_code == 200
        monkeypatch.setattr(app.batcher, where, fail)
        for inputs in (["a"], ["b", "c"]):
            refused_with(client.post("/predict", json={"inputs": inputs}), 500, "a bug in the server")
        refused_with(client.get("/health"), 503, "computes nothing any more")
    assert "RuntimeError: a bug in batches" in caplog.text
    assert "A bug, so the server computes nothing any more" in caplog.text


def test_a_bug_that_ends_the_watch_for_new_weights(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """The weights that are there go on answering."""
    monkeypatch.setattr(serving_weights, "SECONDS", 0.01)
    weights = Weights(Path("fake"), fake_texts)
    app = App(weights, Limits(), 64)
    monkeypatch.setattr(weights, "load_if_new", lambda: 1 / 0)
    with open_client(app) as client:
        end = time.monotonic() + 20
        while client.get("/health").status_code == 200:
            assert time.monotonic() < end
        refused_with(client.get("/health"), 503, "takes no new weights")
        assert client.post("/predict", json={"inputs": ["a"]}).status_code == 200
    assert "ZeroDivisionError" in caplog.text


def test_an_answer_that_is_no_number() -> None:
    """NaN is no JSON. The network's answer, not the request, is at fault, but only another input helps."""
    app = App(Weights(Path("fake"), fake_texts), Limits(), 64)
    app.batcher.predictor.processing.postprocess = lambda outputs: [  # type: ignore[method-assign]
        {"prediction": [], "probability": float("nan")} for _ in outputs["outputs"]
    ]
    with open_client(app) as client:
        refused_with(client.post("/predict", json={"inputs": ["a"]}), 422, "not a number")


def test_old_weights_answer_what_they_have_read() -> None:
    """An example is computed by the weights whose vocabulary it was read with."""
    gate, other = Gate(), Gate()
    other.go.set()
    app = App(Weights(Path("fake"), lambda: fake_texts(gate)), Limits(), 64)

    def swap() -> None:
        app.batcher.predictor = fake_texts(other)

    with open_client(app) as client:
        post_together(client, [["first"], ["second"]], gate, app, swap)
        assert client.post("/predict", json={"inputs": ["third"]}).status_code == 200
    assert gate.sizes == [1, 1]
    assert other.sizes == [1]


# -------------------------------------------------------------------------------------------- weights


def test_new_weights(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """Those that can be used answer; about those that cannot the log says so, once."""
    monkeypatch.setattr(serving_weights, "SECONDS", 0.02)
    model_dir = tmp_path / "experiment"
    shutil.copytree(trained, model_dir)
    best = model_dir / "best_weights"
    (old,) = best.glob("*.pt")
    app = App(Weights(model_dir, lambda: load_predictor(model_dir)), Limits(), 64)

    def wait_until(is_so: Callable[[], bool]) -> None:
        end = time.monotonic() + 30
        while not is_so():
            assert time.monotonic() < end
            assert client.post("/predict", **form(photo())).status_code == 200

    with open_client(app) as client:
        assert client.get("/model").json()["weights"] == old.name
        add_weights(best, "epoch_0007.pt", old.read_bytes())
        wait_until(lambda: client.get("/model").json()["weights"] == "epoch_0007.pt")
        with caplog.at_level("WARNING"):
            add_weights(best, "epoch_0008.pt", b"damaged")
            wait_until(lambda: "New weights cannot be used" in caplog.text)
            time.sleep(0.2)
        assert caplog.text.count("cannot be used") == 1
        assert client.get("/model").json()["weights"] == "epoch_0007.pt"
        shutil.rmtree(best)  # a run that starts again
        time.sleep(0.2)
        assert client.post("/predict", **form(photo())).status_code == 200


def add_weights(folder: Path, name: str, content: bytes) -> None:
    """As a run does: whole at once."""
    (folder / "partial").write_bytes(content)
    (folder / "partial").rename(folder / name)


def test_weights_of_a_file(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_weights, "SECONDS", 0.02)
    (old,) = (trained / "best_weights").glob("*.pt")
    file = tmp_path / "weights.pt"
    shutil.copy(old, file)
    loads = []

    def load() -> Predictor:
        loads.append(file)
        return load_predictor(file)

    app = App(Weights(file, load), Limits(), 64)
    with open_client(app) as client:
        add_weights(tmp_path, "weights.pt", old.read_bytes())
        end = time.monotonic() + 30
        while len(loads) < 2 and time.monotonic() < end:
            time.sleep(0.02)
        assert client.post("/predict", **form(photo())).status_code == 200
    assert len(loads) == 2


# ------------------------------------------------------------------------------------------- the command


def test_what_a_user_can_put_right(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        refused(run("serve", "--model_dir", trained, "--port", port), f"127.0.0.1, port {port}: in use", "--port")
    refused(run("serve", "--model_dir", trained, "--port", 70_000), "port 70000: cannot listen here")
    refused(run("serve", "--model_dir", trained, "--host", "no.such.host.invalid"), "Check --host")
    refused(run("serve", "--model_dir", trained, "--host", "x" * 64 + ".org"), "cannot listen here", "Check --host")
    refused(run("serve", "--model_dir", write_params(tmp_path / "new"), "--port", 0), "no best weights", "train.py")
    refused(run("serve", "--weights", tmp_path / "none.pt", "--port", 0), "none.pt: no such")
    assert run("serve", "--max_batch", 0).status == 2
    for module in ("fastapi", "uvicorn", "python_multipart"):
        with monkeypatch.context() as patch:
            for name in [name for name in sys.modules if name.partition(".")[0] in ("serving", module)]:
                patch.delitem(sys.modules, name)
            patch.setitem(sys.modules, module, None)
            result = run("serve", "--model_dir", trained)
            refused(result, f"{module} is not installed", "pip install -r requirements-serve.txt")


def test_the_server_needs_no_torch() -> None:
    """An ONNX file is served without it."""
    code = "import sys, serve, serving.server; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[subprocess.Popen[str], int]]]:
    """`serve(model_dir)` starts the command, and returns its process and port once it answers."""
    started = []

    def begin(*flags: Any) -> tuple[subprocess.Popen[str], int]:
        command = [sys.executable, "serve.py", "--port", "0", "--model_dir", *map(str, flags)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                return process, int(found[1])
        raise AssertionError(process.communicate())

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def test_only_this_machine_by_default(trained: Path, serve: Any) -> None:
    _, port = serve(trained)
    request = urllib.request.Request(f"http://127.0.0.1:{port}/health", headers={"Host": f"evil.example:{port}"})
    with pytest.raises(urllib.error.HTTPError, match="421"):
        urllib.request.urlopen(request, timeout=30)
    request = urllib.request.Request(f"http://127.0.0.1:{port}/health", method="HEAD")
    with urllib.request.urlopen(request, timeout=30) as response:
        assert response.status == 200
        assert response.read() == b""


def half_a_request(port: int) -> tuple[socket.socket, bytes]:
    """A connection that has sent a part of a request, and the rest of it."""
    body, headers = as_form(photo())
    lines = ["POST /predict HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    head = "\r\n".join([*lines, f"Content-Type: {headers['Content-Type']}", "", ""])
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.sendall(head.encode() + body[:100])
    time.sleep(0.2)
    return connection, body[100:]


def test_sigterm_answers_what_is_under_way(trained: Path, serve: Any) -> None:
    """Then the server ends, with status 0; new connections are refused meanwhile."""
    process, port = serve(trained)
    connection, rest = half_a_request(port)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None
    with pytest.raises(OSError):  # noqa: PT011
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    connection.sendall(rest)
    answer = b"".join(iter(lambda: connection.recv(100_000), b""))
    assert answer.startswith(b"HTTP/1.1 200"), answer
    assert b'"prediction"' in answer
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Stopping after the requests under way" in err
    assert "Traceback" not in err


def test_a_second_signal_ends_at_once(trained: Path, serve: Any) -> None:
    process, port = serve(trained)
    connection, _ = half_a_request(port)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == 128 + signal.SIGINT
    connection.close()


def post_photo(port: int) -> int:
    """The status of an answer over a connection of its own."""
    body, headers = as_form(photo())
    request = urllib.request.Request(f"http://127.0.0.1:{port}/predict", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.slow
def test_weights_change_while_requests_run(trained: Path, tmp_path: Path, serve: Any) -> None:
    """No request is dropped, or waits for the new weights."""
    model_dir = tmp_path / "experiment"
    shutil.copytree(trained, model_dir)
    (old,) = (model_dir / "best_weights").glob("*.pt")
    process, port = serve(model_dir)
    statuses: list[int] = []
    is_over = threading.Event()

    def keep_posting() -> None:
        while not is_over.is_set():
            statuses.append(post_photo(port))

    threads = [threading.Thread(target=keep_posting) for _ in range(4)]
    for thread in threads:
        thread.start()
    seen = {old.name}
    for epoch in (5, 6, 7):
        add_weights(old.parent, f"epoch_{epoch:04d}.pt", old.read_bytes())
        end = time.monotonic() + 30
        while f"epoch_{epoch:04d}.pt" not in seen and time.monotonic() < end:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/model", timeout=60) as response:
                seen.add(json.load(response)["weights"])
            time.sleep(0.05)
    is_over.set()
    for thread in threads:
        thread.join()
    assert seen == {old.name, "epoch_0005.pt", "epoch_0006.pt", "epoch_0007.pt"}
    assert len(statuses) > 20
    assert set(statuses) == {200}
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err


# -------------------------------------------------------------------------------------------- the page


def test_the_page_talks_to_nobody_else(texts: TestClient) -> None:
    response = texts.get("/")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert policy.count("'sha256-") == 2
    assert "unsafe" not in policy
    assert not re.search(r"(src|href)=.?(https?:)?//", response.text)
    # a proxy may give the server a path: no address begins at the root
    assert not re.search(r"""((src|href)=.?|fetch\(.)/""", response.text)
    assert "loaded from the internet" in response.text


in_a_browser = pytest.mark.skipif(
    bool(MISSING), reason=f"no {' and no '.join(MISSING)}: the page is not tried in a browser"
)

DELAYED = """
  const real = window.fetch;
  let go, count = 0;
  const allowed = new Promise(resolve => { go = resolve; });
  window.go = go;
  window.fetch = async (...words) => {
    const response = await real(...words), isFirst = count++ === 0;
    if (isFirst) await allowed;
    const answer = await response.json();
    if (isFirst) window.late = true;
    return {json: async () => answer};
  };
"""


@pytest.mark.slow
@in_a_browser
def test_the_page_behind_a_proxy_shows_the_last_answer() -> None:
    """The server has a path there. An answer that comes after the answer to a later question is not shown."""
    app = App(Weights(Path("fake"), fake_texts), Limits(), 64)

    async def proxy(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            assert path.startswith("/tagger/"), path
            scope = {**scope, "path": path.removeprefix("/tagger")}
        await app(scope, receive, send)

    with open_browser() as browser, serving_at(proxy) as url:
        browser.open(url + "/tagger/")
        browser.find("textarea")
        browser.run(DELAYED)
        browser.type("textarea", "Anna")
        browser.click("button")
        browser.type("textarea", " met Zoë")
        browser.click("button")
        assert "2 per in 3 words" in browser.text(".found")
        browser.run("window.go()")
        end = time.monotonic() + 20
        while not browser.run("return window.late === true"):
            assert time.monotonic() < end
        assert "2 per in 3 words" in browser.text(".found")


@pytest.mark.slow
@in_a_browser
def test_the_page_in_a_browser(trained: Path, table: Path, tmp_path: Path) -> None:
    """A person sees an answer for a photo, a text and a row, and errors in words."""
    draw_photo(tmp_path / "sign.jpg", 1)
    (tmp_path / "text.jpg").write_text("no photo", encoding="utf-8")

    def app(load: Callable[[], Predictor]) -> App:
        return App(Weights(tmp_path / "fake", load), Limits(), 64)

    with open_browser() as browser:
        with serving_at(app(lambda: load_predictor(trained, top=10))) as url:
            browser.open(url)
            browser.type("input[type=file]", f"{tmp_path / 'sign.jpg'}\n{tmp_path / 'text.jpg'}")
            assert "not a photo" in browser.text(".card.wrong")
            assert "sign.jpg" in browser.text(".card")
            assert browser.run("return document.querySelectorAll('.card .bar').length") == 3
            assert browser.run("return document.querySelector('.photo img').naturalWidth") == 24
        with serving_at(app(fake_texts)) as url:
            browser.open(url)
            browser.type("textarea", "Anna met Zoë , in London")
            browser.click("button")
            assert browser.text(".card .text") == "Anna\nper met Zoë\nper , in London\ngeo".replace("\n", "")
            assert "2 per, 1 geo in 6 words" in browser.text(".found")
        with serving_at(app(lambda: load_predictor(table, top=10))) as url:
            browser.open(url)
            browser.type("input[type=number]", "12")
            browser.type("select", "Kent")
            browser.type("input[type=number]", "\ue007")  # Enter
            assert "%" in browser.text(".card .answer")
            assert browser.run("return document.querySelectorAll('.card .bar').length") == 2
        browser.click("button")  # the server has ended
        browser.find(".card.wrong")
        assert "The server does not answer" in browser.text(".card.wrong")
        policy = [message for message in browser.complaints() if "Content Security Policy" in message]
        assert policy == []


WORDS = (
    "return [...document.querySelectorAll('.text .influence')].map(e => [e.textContent, e.title, e.style.background])"
)


@pytest.mark.slow
@in_a_browser
def test_the_page_shows_what_decided(reviews: Path, critic: Callable[..., Path], tmp_path: Path) -> None:
    """Words on colours, characters without gaps; of an exported graph, the class alone."""
    chars = critic(level="char")
    assert run("export", "--model_dir", reviews, "--output", tmp_path / "model.onnx").status == 0
    text = "It's  a very dull film.<br />\nOh 🏴 !"
    with open_browser() as browser:
        for place in (reviews, chars, tmp_path / "model.onnx"):
            with serving_at(App(Weights(place, lambda: load_predictor(place, top=10)), Limits(), 64)) as url:  # noqa: B023
                browser.open(url)
                browser.find("textarea")
                browser.run(f"document.querySelector('textarea').value = {json.dumps(text)}")
                browser.click("button")
                assert "%" in browser.text(".card .answer")
                assert browser.run("return document.querySelectorAll('.card .bar').length") == 2
            if place.suffix == ".onnx":
                assert not browser.run("return document.querySelector('.text, .influence, .wrong')")
                continue
            (record,) = load_predictor(place).explaining(text)
            assert browser.run("return document.querySelector('.text').textContent") == text
            words = browser.run(WORDS)
            assert [word.replace("\n", " ") for word, _, _ in words] == record["words"]
            strongest = max(map(abs, record["influence"]))
            for (_, title, background), influence in zip(words, record["influence"], strict=True):
                assert float(title) == pytest.approx(influence, abs=0.01)
                assert ("0.6" in background) == (abs(influence) == strongest)
                assert ("--for" in background) == (float(title) > 0)
            assert "spoke for the prediction and against it" in browser.text(".found")
        assert browser.complaints() == []


def test_colours_are_those_of_the_report(texts: TestClient) -> None:
    page = texts.get("/").text
    for name, share in (("for", 1.0), ("against", -1.0)):
        (numbers,) = re.findall(rf"--{name}: ([\d ]+);", page)
        assert color(share) == f"rgb({numbers} / 0.60)"


def test_a_report_shows_texts_as_they_are_written() -> None:
    record = {"input": "So  <b>.<br />No", "words": ["So", "<b>", ".", "No"], "influence": [2.0, -1.0, 0.0, 0.0]}
    record["word_spans"] = [[0, 2], [4, 7], [7, 8], [14, 16]]
    orange, blue = (f'<span style="background: {color(share)}">' for share in (1, -0.5))
    assert highlight(record) == f"{orange}So</span>  {blue}&lt;b&gt;</span>.      No"
    assert shorten(record) == "So <b>. No"
