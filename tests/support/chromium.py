"""Opens a page in Debian's Chromium, and says what the browser makes of it.

Speaks the DevTools protocol over the browser's own pipe: messages of JSON, each ended by a zero
byte. That needs no driver of the browser's version.
"""

import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PATIENCE_S = 120.0
NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((found for found in map(shutil.which, NAMES) if found), None)
needs_chromium = pytest.mark.skipif(
    BROWSER is None, reason="chromium is not on PATH: the pages are not opened in a browser"
)


class Chromium:
    """One tab. ``errors``: what scripts and the page's policy have complained of; ``requests``:
    every address that the page has asked for."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._rest = b""
        self._last = 0
        self._session: str | None = None
        self.errors: list[str] = []
        self.requests: list[str] = []

    def open(self, page: Path, width: int, height: int = 800) -> None:
        """Open a file in a window of that size, and wait until it is loaded."""
        made = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=made, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        self.errors.clear()
        self.requests.clear()
        self._call("Page.navigate", url=page.as_uri())
        deadline = time.monotonic() + PATIENCE_S
        while not self.value("document.readyState == 'complete' && location.href != 'about:blank'"):
            assert time.monotonic() < deadline, "the page is not loaded"
            time.sleep(0.05)

    def value(self, expression: str) -> Any:
        """What an expression of the page's language gives."""
        said = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """Press a key and let it go."""
        for kind in ("rawKeyDown", "keyUp"):
            self._call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key,
                windowsVirtualKeyCode=code, nativeVirtualKeyCode=code,
            )  # fmt: skip

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session is not None and not method.startswith("Target."):
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE_S
        while True:
            said = self._next(deadline)
            if said.get("id") == self._last:
                assert "error" not in said, f"{method}: {said}"
                result: dict[str, Any] = said["result"]
                return result
            self._note(said)

    def _note(self, event: dict[str, Any]) -> None:
        what, facts = event.get("method", ""), event.get("params", {})
        if what == "Runtime.exceptionThrown":
            self.errors.append(str(facts["exceptionDetails"]))
        elif what == "Log.entryAdded" and facts["entry"]["level"] == "error":
            self.errors.append(str(facts["entry"]["text"]))
        elif what == "Network.requestWillBeSent":
            self.requests.append(facts["request"]["url"])

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            left = max(0.0, deadline - time.monotonic())
            assert select.select([self._answers], [], [], left)[0], "the browser does not answer"
            read = os.read(self._answers, 1 << 16)
            assert read, "the browser has ended"
            self._rest += read
        message, _, self._rest = self._rest.partition(b"\0")
        said: dict[str, Any] = json.loads(message)
        return said


@contextmanager
def chromium(folder: Path) -> Iterator[Chromium]:
    """A browser without a window; ``folder``, an empty one, is its home."""
    assert BROWSER is not None
    commands, answers = os.pipe(), os.pipe()
    options = [
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--no-first-run", "--disable-extensions", "--disable-background-networking",
        "--remote-debugging-pipe", f"--user-data-dir={folder}",
    ]  # fmt: skip
    # The browser reads its commands from descriptor 3 and answers on 4.
    script = f'exec "$@" 3<&{commands[0]} 4>&{answers[1]}'
    process = subprocess.Popen(
        ["bash", "-c", script, "bash", BROWSER, *options],
        pass_fds=(commands[0], answers[1]), start_new_session=True,
        env=os.environ | {"HOME": str(folder)}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(commands[0])
    os.close(answers[1])
    try:
        yield Chromium(commands[1], answers[0])
    finally:
        os.close(commands[1])
        os.close(answers[0])
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
