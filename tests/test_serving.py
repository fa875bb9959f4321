"""serve.py: what it answers, what it refuses, how it ends, and its page."""

from __future__ import annotations

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
from starlette.testclient import TestClient

from engine.predicting import About, Example, Options, Predictor, Processing, Record
from predict import load_predictor
from serving import inputs as serving_inputs
from serving import weights as serving_weights
from serving.app import App
from serving.limits import Limits
from serving.server import _Server
from serving.weights import Weights
from tests.browser import MISSING, open_browser
from tests.conftest import ROOT, draw_photo, read_json, refused, run, write_params
from utils import UserError


class FakeTexts(Processing):
    """A tagger without a network: capital letters begin names, and the word "fail" is a bug."""

    accepts = "texts"

    def read(self, words: Sequence[str], options: Options) -> Iterator[Any]:
        yield from words

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
def serving_at(app: App) -> Iterator[str]:
    """The address of a server in a thread of this process."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = _Server(uvicorn.Config(app, log_config=None, ws="none"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
