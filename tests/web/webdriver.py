"""A headless Chromium, driven by its own chromedriver over the W3C WebDriver protocol: a dozen requests, no library."""

from __future__ import annotations

import base64
import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2

DRIVER = shutil.which("chromedriver")
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")
"""Chromium's own sandbox does not work for root, and is not needed for a page of our own."""
KEYS = {"Tab": "\ue004", "Enter": "\ue007"}


class Browser:
    """One window. Every browser has a profile of its own."""

    def __init__(self, http: httpx2.Client) -> None:
        self._http = http
        options = {"args": ARGUMENTS}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        answer = self._send("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{answer['sessionId']}"

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = self._http.request(method, path, json=body if method == "POST" else None)
        value = answer.json()["value"]
        assert answer.status_code == 200, value
        return value

    def do(self, path: str, **body: Any) -> Any:
        return self._send("POST", f"{self._session}{path}", body)

    def end(self) -> None:
        self._send("DELETE", self._session)

    def open(self, url: str) -> None:
        self.do("/url", url=url)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page; the value of its `return`."""
        return self.do("/execute/sync", script=script, args=arguments)

    def cdp(self, command: str, **parameters: Any) -> Any:
        return self.do("/goog/cdp/execute", cmd=command, params=parameters)

    def find(self, css: str) -> str:
        return str(self.do("/element", using="css selector", value=css)[ELEMENT])

    def click(self, css: str) -> None:
        self.do(f"/element/{self.find(css)}/click")

    def submit(self, css: str) -> None:
        """Click a button that sends a form, and wait for the whole answer: a click may return before it comes."""
        before = self.find("html")
        self.click(css)
        self.wait(lambda: not self._is_shown(before), "the answer to a form")
        self.wait(lambda: self.run("return document.readyState") == "complete", "the whole answer to a form")

    def _is_shown(self, element: str) -> bool:
        """Whether the element is part of the document that the window shows."""
        return self._http.get(f"{self._session}/element/{element}/name").status_code == 200

    def type(self, css: str, text: str) -> None:
        self.do(f"/element/{self.find(css)}/value", text=text)

    def press(self, *names: str) -> None:
        """Keys, to whatever has the focus."""
        actions = [{"type": kind, "value": KEYS.get(name, name)} for name in names for kind in ("keyDown", "keyUp")]
        self.do("/actions", actions=[{"type": "key", "id": "keyboard", "actions": actions}])

    def text(self) -> str:
        return str(self.run("return document.body?.innerText || ''"))

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = 90) -> Any:
        end = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < end, f"never: {what}\n{self.text()}"
            time.sleep(0.2)
        return found

    def log(self) -> list[str]:
        """What the page's console shows: blocked scripts, failed requests."""
        return [str(entry["message"]) for entry in self.do("/se/log", type="browser")]

    def show(self, *, width: int, height: int = 844, dark: bool = False) -> None:
        """The size of the window, and what the browser prefers."""
        self.cdp(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.cdp("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """A PNG of the page."""
        found = self.cdp("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))


@contextlib.contextmanager
def chromedriver() -> Iterator[Callable[[], Browser]]:
    """Opens browsers; all of them end with the block."""
    assert DRIVER
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    opened: list[Browser] = []
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as http:

        def new() -> Browser:
            opened.append(Browser(http))
            return opened[-1]

        try:
            for _ in range(200):
                with contextlib.suppress(httpx2.TransportError):
                    if http.get("/status").json()["value"]["ready"]:
                        break
                time.sleep(0.1)
            yield new
        finally:
            for browser in opened:
                with contextlib.suppress(AssertionError, httpx2.HTTPError):
                    browser.end()
            process.terminate()
            process.wait(20)
