"""The addresses of the server, and one shape for all errors: {"error": "what was wrong, and what was expected"}."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import ipaddress
import json
import re
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from PIL import Image
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from engine.answers import NOT_FINITE, Record
from serving.batching import Batcher
from serving.bodies import Bodies
from serving.description import ERROR, SCHEMAS, describe, describe_predict, describe_write
from serving.inputs import parse
from serving.limits import BUG, NO_SNIFFING, Limits, Refused
from serving.weights import Weights, follow
from serving.writing import Writers
from utils import logger

SMALL = 100_000  # bytes; longer bodies are parsed outside the event loop
ABOUT = 'Answers with a trained network. Whatever is wrong with a request is told as `{"error": "..."}`.'
PAGE = Path(__file__).with_name("page.html")


class App(FastAPI):
    """Answers with the newest of some weights.

    Args:
        only_local: refuse requests for another host than this machine. Otherwise a web page elsewhere could have its
            name resolved to 127.0.0.1, and then read what this server answers to the visitor's browser.

    Raises:
        UserError: there are no weights, or they cannot be used.
    """

    def __init__(self, weights: Weights, limits: Limits, max_batch: int, only_local: bool = False):
        super().__init__(
            title="Predictions",
            description=ABOUT,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
            lifespan=_lifespan,
        )
        # their pixels are counted before they are decoded
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        self.weights, self.limits, self.only_local = weights, limits, only_local
        self.batcher = Batcher(weights.load(), limits, max_batch)
        self.bodies, self.writers = Bodies(limits), Writers(limits)
        self.losses: list[str] = []  # what bugs ended, in words: the server should be started again
        page = PAGE.read_text(encoding="utf-8")
        headers = {"content-security-policy": policy_of(page), "referrer-policy": "no-referrer", **NO_SNIFFING}

        @self.get("/", response_class=HTMLResponse, summary="A page for a person")
        async def show_page() -> HTMLResponse:
            return HTMLResponse(page, headers=headers)

        @self.get("/health", summary="Whether the server answers")
        async def health() -> Any:
            if self.losses:
                return refusal(503, f"{'; '.join(self.losses)}; its log says why")
            return {"status": "ok"}

        @self.get("/model", summary="What was trained, and what an input looks like")
        async def model() -> dict[str, Any]:
            return describe(self.batcher.predictor, limits)

        @self.get("/docs", include_in_schema=False)
        async def docs() -> HTMLResponse:
            return get_swagger_ui_html(openapi_url="openapi.json", title=self.title)

        self.add_route("/predict", self.predict, methods=["POST"], include_in_schema=False)
        self.add_route("/write", self.write, methods=["POST"], include_in_schema=False)
        self.add_exception_handler(HTTPException, self._explain)
        self.add_exception_handler(RequestValidationError, _explain_fields)
        self.add_exception_handler(Exception, _explain_bug)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST /predict goes past FastAPI's layers, which would take as long as a small network does."""
        if scope["type"] != "http":
            return await super().__call__(scope, receive, send)
        request = Request(scope, receive)
        if self.only_local and not is_loopback(host := request.headers.get("host", "")):
            expected = f"expected localhost, 127.0.0.1 or [::1], got {host:.100}"
            return await refusal(421, f"Host: {expected}. This server is for this machine only (see --host).")(
                scope, receive, send
            )
        if scope["method"] == "HEAD":  # whose answer is that to GET; uvicorn leaves out its body
            scope = {**scope, "method": "GET"}
        if scope["path"] != "/predict" or scope["method"] != "POST":
            return await super().__call__(scope, receive, send)
        try:
            response = await self.predict(request)
        except Exception as error:
            logger.exception("POST /predict:")
            response = await _explain_bug(request, error)
        await response(scope, receive, send)

    async def predict(self, request: Request) -> Response:
        """POST /predict."""

        async def answer(body: bytearray) -> Response:
            return as_response(await self.batcher.answer(*await self._parse(request, body)))

        return await self._reply(request, answer)

    async def write(self, request: Request) -> Response:
        """POST /write."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # which a page of another server cannot send without being asked
            return refusal(415, f"Content-Type: expected application/json, got {kind[:100] or 'none'}")

        async def answer(body: bytearray) -> Response:
            return self.writers.answer(self.batcher.predictor, body)

        return await self._reply(request, answer)

    async def _reply(self, request: Request, answer: Callable[[bytearray], Awaitable[Response]]) -> Response:
        """What `answer` makes of the body of a request, or why it is refused."""
        try:
            async with self.bodies.read(request) as body:
                return await answer(body)
        except Refused as error:
            return refusal(error.status, error.message, {"retry-after": "1"} if error.status == 429 else {})
        except ClientDisconnect:
            return refusal(400, "the body is cut off")  # which nobody reads

    async def _parse(self, request: Request, body: bytearray) -> tuple[list[Any], bool]:
        content_type, accepts = request.headers.get("content-type", ""), self.batcher.predictor.processing.accepts
        if len(body) <= SMALL:
            return parse(body, content_type, accepts, self.limits)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.batcher.pool, parse, body, content_type, accepts, self.limits)

    def openapi(self) -> dict[str, Any]:
        """The schema, with what the weights of the moment expect."""
        schema = super().openapi()
        predict = {"post": describe_predict(self.batcher.predictor, self.limits)}
        components = {**schema.get("components", {}), "schemas": SCHEMAS}
        wrong = {"description": "What was wrong, and what was expected", "content": {"application/json": ERROR}}
        for path in schema["paths"].values():
            path["get"]["responses"]["4XX"] = wrong
        paths = {"/predict": predict, **schema["paths"]}
        if self.batcher.predictor.processing.writes:
            paths["/write"] = {"post": describe_write()}
        return {**schema, "paths": paths, "components": components}

    async def _explain(self, request: Request, error: Any) -> Response:
        """404 and 405, and whatever else Starlette refuses."""
        methods = {getattr(route, "path", ""): sorted(getattr(route, "methods", None) or []) for route in self.routes}
        path = request.url.path
        if error.status_code == 404:
            message = f"{path:.200}: no such address. There are {', '.join(filter(None, sorted(methods)))}."
        elif error.status_code == 405:
            message = f"{path}: expected {' or '.join(methods.get(path, []))}, got {request.method:.20}."
        else:
            message = str(error.detail)
        return refusal(error.status_code, message, dict(error.headers or {}))


def is_loopback(host: str) -> bool:
    """Whether a Host header, or an address, means this machine."""
    name = re.sub(r":\d*$", "", host) if host.startswith("[") or host.count(":") == 1 else host
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


async def _watch(app: Any, work: Coroutine[Any, Any, None], loss: str) -> None:
    """Do work that should go on until it is cancelled. If a bug ends it, the log and GET /health tell the loss."""
    try:
        await work
    except Exception:
        logger.exception("A bug, so %s:", loss)
        app.losses.append(loss)


@contextlib.asynccontextmanager
async def _lifespan(app: Any) -> AsyncIterator[None]:
    tasks = [
        asyncio.create_task(_watch(app, app.batcher.run(), "the server computes nothing any more")),
        asyncio.create_task(_watch(app, follow(app.weights, app.batcher), "the server takes no new weights any more")),
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        app.batcher.close()


# ------------------------------------------------------------------------------------------- responses


def as_response(records: list[Record]) -> Response:
    """Status 200 if any input was answered, otherwise 422 with the first input's error."""
    errors = [record["error"] for record in records if "error" in record]
    answer: dict[str, Any] = {"predictions": records}
    if len(errors) == len(records):
        first = f"{records[0]['input']!s:.100}: {errors[0]}"
        answer["error"] = first if len(records) == 1 else f"none of {len(records)} inputs can be read. {first}"
    try:
        content = json.dumps(answer, allow_nan=False)
    except ValueError:  # a number somewhere in a record is NaN or infinite
        return refusal(422, NOT_FINITE)
    return Response(content, 422 if "error" in answer else 200, NO_SNIFFING, "application/json")


def refusal(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    content = json.dumps({"error": message})
    return Response(content, status, {**(headers or {}), **NO_SNIFFING}, "application/json")


async def _explain_fields(_: Request, error: Any) -> Response:
    problems = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
    return refusal(422, "; ".join(problems))


async def _explain_bug(_: Request, __: Any) -> Response:
    return refusal(500, BUG)


def policy_of(page: str) -> str:
    """A Content-Security-Policy under which a page runs its own script and styles, and talks to this server only."""

    def hashes(tag: str) -> str:
        parts = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(p.encode()).digest()).decode()}'" for p in parts)

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; img-src blob: data:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
