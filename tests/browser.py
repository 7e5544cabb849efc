"""A real browser for tests: headless Chromium, driven by its own protocol over two pipes, without a driver."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Browser:
    """One page of a browser; use as a context manager. Skips the test where no browser is installed."""

    def __enter__(self) -> Browser:
        program = next((path for path in map(shutil.which, NAMES) if path), None)
        if program is None:
            pytest.skip("needs chromium: apt-get install chromium")
        self._profile = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        read, theirs_out = os.pipe()
        theirs_in, write = os.pipe()
        flags = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-component-update",
            f"--user-data-dir={self._profile.name}",
        ]  # fmt: skip
        command = ["bash", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}', "-", program, *flags]
        self._process = subprocess.Popen(
            [*command, "--remote-debugging-pipe", "about:blank"],
            pass_fds=(theirs_in, theirs_out), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self._from, self._to = os.fdopen(read, "rb", buffering=0), os.fdopen(write, "wb", buffering=0)
        self._held, self._number, self.errors = b"", 0, []
        target = next(each for each in self._say("Target.getTargets")["targetInfos"] if each["type"] == "page")
        self._session = self._say("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.do(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._from.close()
        self._to.close()
        self._profile.cleanup()

    def do(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Say something to the page."""
        return self._say(method, self._session, **arguments)

    def open(self, url: str) -> None:
        """Load a page."""
        self.do("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def value(self, expression: str) -> Any:
        """What a JavaScript expression gives on the page."""
        found = self.do("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, expression: str, seconds: float = 60) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.value(expression):
            assert time.monotonic() < end, f"{expression} stays false; errors: {self.errors}"
            time.sleep(0.05)

    def _say(self, method: str, session: str | None = None, **arguments: Any) -> dict[str, Any]:
        self._number += 1
        said = {"id": self._number, "method": method, "params": arguments}
        self._to.write(json.dumps({**said, **({"sessionId": session} if session else {})}).encode() + b"\0")
        while True:
            heard = self._hear()
            if heard.get("id") == self._number:
                assert "error" not in heard, heard["error"]
                return heard["result"]
            if heard.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.errors.append(json.dumps(heard["params"])[:500])

    def _hear(self) -> dict[str, Any]:
        while b"\0" not in self._held:
            part = os.read(self._from.fileno(), 1 << 16)
            assert part, "the browser ended"
            self._held += part
        line, self._held = self._held.split(b"\0", 1)
        return json.loads(line)
