"""The port, and how signals end the server."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator

import uvicorn

from engine.signals import stop
from serving.app import App
from serving.weights import describe_weights
from utils import UserError, logger

PATIENCE = 30  # seconds for requests under way when the server ends


def listen(host: str, port: int) -> socket.socket:
    """A socket that clients can connect to. Raises UserError if the port cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=2048)
        # connections inherit it; without it the second half of an answer waits 40 ms for the client's acknowledgement
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except (OSError, OverflowError, UnicodeError) as error:
        number, place = getattr(error, "errno", None), f"{host}, port {port}"
        if number == errno.EADDRINUSE:
            raise UserError(f"{place}: in use by another program. Choose another --port.") from None
        if number == errno.EACCES:
            raise UserError(f"{place}: not allowed. Choose a --port from 1024 on.") from None
        raise UserError(f"{place}: cannot listen here ({error}). Check --host and --port.") from None


def run_server(app: App, listener: socket.socket) -> None:
    """Answer requests until a signal comes; then answer those under way. A second signal ends the process at once."""
    host, port = listener.getsockname()[:2]
    logger.info("%s", describe_weights(app.batcher.predictor))
    logger.info("Answering at http://%s:%d (Ctrl-C ends it).", f"[{host}]" if ":" in host else host, port)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=PATIENCE,
    )
    with stop.deferred("the requests under way"):
        Server(config).run([listener])


class Server(uvicorn.Server):
    """Leaves signals to `engine.signals.stop`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        self.should_exit = self.should_exit or bool(stop.received)
        return await super().on_tick(counter)
