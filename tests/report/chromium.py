"""A real headless Chromium, driven over the DevTools protocol by two pipes: no port, no driver, no dependency."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

BINARY = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


class Chromium:
    """One browser with a fresh profile; ``page()`` opens a tab. Use as a context manager."""

    def __init__(self) -> None:
        self.profile = tempfile.mkdtemp(prefix="kd-chromium-")
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        command = [BINARY, *_FLAGS, f"--user-data-dir={self.profile}", "about:blank"]
        # Chromium reads commands from descriptor 3 and answers on 4.
        shell = f'exec "$@" 3<&{to_read} 4>&{to_write}'
        self.process = subprocess.Popen(
            ["bash", "-c", shell, "bash", *command],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_read)
        os.close(to_write)
        self._buffer = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self.send("Browser.close")
            self.process.wait(timeout=10)
        except (OSError, RuntimeError, TimeoutError, subprocess.TimeoutExpired):
            os.killpg(self.process.pid, signal.SIGKILL)  # its own session: only what this object has started
            self.process.wait()
        os.close(self._write)
        os.close(self._read)
        shutil.rmtree(self.profile, ignore_errors=True)

    def send(self, method: str, session: str | None = None, timeout: float = 60.0, **params: Any) -> dict[str, Any]:
        """Call a DevTools method and return its result; events that come meanwhile are kept in ``events``."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            answer = self._next(until - time.monotonic())
            if answer is None:
                continue
            if answer.get("id") == message["id"]:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)
        raise TimeoutError(f"Chromium didn't answer {method} within {timeout} s")

    def pump(self, seconds: float) -> None:
        """Take in events for a while."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            event = self._next(left)
            if event is not None:
                self.events.append(event)

    def _next(self, timeout: float) -> dict[str, Any] | None:
        while b"\0" not in self._buffer:
            if not select.select([self._read], [], [], max(0.0, timeout))[0]:
                return None
            piece = os.read(self._read, 1 << 20)
            if not piece:
                raise RuntimeError("Chromium has closed its pipe")
            self._buffer += piece
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def page(self, url: str, width: int = 1400, height: int = 1000, dark: bool = False, phone: bool = False) -> Page:
        return Page(self, url, width, height, dark, phone)


class Page:
    """One tab. ``problems`` collects console errors, exceptions and failed requests, of iframes too."""

    def __init__(self, browser: Chromium, url: str, width: int, height: int, dark: bool, phone: bool) -> None:
        self.browser = browser
        self.width = width
        target = browser.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.size(width, height, phone)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=scheme)
        self.send("Page.navigate", url=url)

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        return self.browser.send(method, self.session, **params)

    def size(self, width: int, height: int, phone: bool = False) -> None:
        factor = 2 if phone else 1
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=factor, mobile=phone
        )

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression (a promise is awaited)."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise RuntimeError(f"{expression}: {details.get('exception', {}).get('description') or details['text']}")
        return answer["result"].get("value")

    def wait_for(self, expression: str, timeout: float = 60.0) -> Any:
        """Poll until the expression is truthy, and return its value."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            value = self.evaluate(f"(() => {{ try {{ return {expression}; }} catch (error) {{ return null; }} }})()")
            if value:
                return value
            self.browser.pump(0.1)
        raise TimeoutError(f"not true within {timeout} s: {expression}; console: {self.problems}")

    def screenshot(self, path: Path, whole: bool = True) -> Path:
        """Write a PNG of the whole page (or of the window) and return its path."""
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(picture["data"]))
        return path

    @property
    def problems(self) -> list[str]:
        self.browser.pump(0.2)
        found = []
        for event in self.browser.events:
            if event.get("sessionId") != self.session:
                continue
            params = event.get("params", {})
            if event["method"] == "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                found.append(f"exception: {details.get('exception', {}).get('description') or details['text']}")
            elif event["method"] == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert", "warning"):
                found.append(
                    f"console.{params['type']}: {[a.get('value', a.get('description')) for a in params['args']]}"
                )
            elif event["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
                found.append(f"log: {params['entry']['text']} {params['entry'].get('url', '')}")
        return found

    @property
    def requests(self) -> list[str]:
        """Addresses that the page asked for."""
        self.browser.pump(0.2)
        sent = [e for e in self.browser.events if e["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent if event.get("sessionId") == self.session]
