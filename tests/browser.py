"""A browser for tests: chromium by the WebDriver protocol (https://www.w3.org/TR/webdriver2/), without a library."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key that the standard gives an element's id
MISSING = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]


class Browser:
    """One window."""

    def __init__(self, port: int, options: list[str]):
        self.base = f"http://127.0.0.1:{port}/session"
        wanted = {"goog:chromeOptions": {"args": options}, "goog:loggingPrefs": {"browser": "ALL"}}
        capabilities = {"capabilities": {"alwaysMatch": {"browserName": "chrome", **wanted}}}
        self.base += "/" + self._call("POST", "", capabilities)["sessionId"]

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)["value"]

    def open(self, url: str) -> None:
        self._call("POST", "/url", {"url": url})

    def find(self, selector: str, seconds: float = 20) -> str:
        """The id of the first element that fits a CSS selector, as soon as there is one."""
        end = time.monotonic() + seconds
        while True:
            found = self._call("POST", "/elements", {"using": "css selector", "value": selector})
            if found:
                return str(found[0][ELEMENT])
            assert time.monotonic() < end, f"no {selector} in {self.run('return document.body.innerText')}"
            time.sleep(0.05)

    def type(self, selector: str, text: str) -> None:
        """Type into an element; into a file input, the paths of files between line ends."""
        self._call("POST", f"/element/{self.find(selector)}/value", {"text": text})

    def click(self, selector: str) -> None:
        self._call("POST", f"/element/{self.find(selector)}/click", {})

    def text(self, selector: str) -> str:
        """What a person reads in an element, as soon as there is something: a card fades in."""
        end = time.monotonic() + 20
        while not (text := str(self._call("GET", f"/element/{self.find(selector)}/text"))):
            assert time.monotonic() < end, f"{selector} is empty"
            time.sleep(0.05)
        return text

    def run(self, script: str) -> Any:
        return self._call("POST", "/execute/sync", {"script": script, "args": []})

    def complaints(self) -> list[str]:
        """What the browser logged: errors of scripts, and what a Content-Security-Policy forbade."""
        return [entry["message"] for entry in self._call("POST", "/se/log", {"type": "browser"})]

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._call("GET", "/screenshot")))

    def close(self) -> None:
        self._call("DELETE", "")


@contextlib.contextmanager
def open_browser(*options: str) -> Iterator[Browser]:
    """A browser without a screen, with more options of chromium's command line."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.05)
        always = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--window-size=1100,900",
        ]
        browser = Browser(port, [*always, *options])
        try:
            yield browser
        finally:
            browser.close()
    finally:
        driver.terminate()
        driver.wait()
