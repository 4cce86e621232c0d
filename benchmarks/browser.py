"""A headless browser that is used as a person does: type, click, drag, read and look.

It is spoken to over a pipe with the DevTools protocol, so that nothing but Chromium is needed and every network request
is seen.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--disable-dev-shm-usage", "--window-size=1360,860", "--force-color-profile=srgb", "--remote-debugging-pipe",
)  # fmt: skip
WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")
NO_WEBGL = ("--disable-gpu", "--disable-3d-apis")
KEYS = {"Enter": 13, "Escape": 27, "ArrowDown": 40, "ArrowUp": 38, "ArrowLeft": 37, "ArrowRight": 39}
WINDOW = (1360, 860)


def find_browser() -> str | None:
    """Return the path of a browser, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


class Browser:
    """A headless browser with one page, with WebGL in software or without."""

    def __init__(self, program: str, profile: Path, *, webgl: bool = True) -> None:
        to_browser, from_browser = os.pipe(), os.pipe()
        # The protocol wants descriptors 3 and 4; lift ours out of the way first.
        there = [fcntl.fcntl(fd, fcntl.F_DUPFD, 30) for fd in (to_browser[0], from_browser[1])]
        quiet = os.open(os.devnull, os.O_RDWR)
        moves = [(quiet, 1), (quiet, 2), (there[0], 3), (there[1], 4)]
        self.process = os.posix_spawn(
            program,
            [program, *FLAGS, *(WEBGL if webgl else NO_WEBGL), f"--user-data-dir={profile}"],
            dict(os.environ),
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, place) for fd, place in moves],
            setpgroup=0,
        )
        for fd in (to_browser[0], from_browser[1], *there, quiet):
            os.close(fd)
        self.writer, self.reader = to_browser[1], from_browser[0]
        self.buffer, self.number, self.session = b"", 0, ""
        self.events: list[dict[str, Any]] = []  # JSON
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.resize(*WINDOW)

    def close(self) -> None:
        """End the browser."""
        with contextlib.suppress(BrokenPipeError, EOFError, TimeoutError):
            self.session = ""
            self.call("Browser.close", wait=5.0)
        deadline = time.monotonic() + 5.0
        while os.waitpid(self.process, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.killpg(self.process, signal.SIGKILL)
                os.waitpid(self.process, 0)
                break
            time.sleep(0.02)
        os.close(self.writer)
        os.close(self.reader)

    def call(self, method: str, *, wait: float = 60.0, **parameters: Any) -> dict[str, Any]:  # JSON
        """Call a method of the protocol and return its result."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.writer, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + wait
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(answer["error"])
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _receive(self, deadline: float) -> dict[str, Any]:  # JSON
        while b"\0" not in self.buffer:
            if not select.select([self.reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
                msg = "the browser does not answer"
                raise TimeoutError(msg)
            chunk = os.read(self.reader, 1 << 20)
            if not chunk:
                msg = "the browser has gone"
                raise EOFError(msg)
            self.buffer += chunk
        message, self.buffer = self.buffer.split(b"\0", 1)
        found: dict[str, Any] = json.loads(message)
        return found

    def open(self, page: Path | str, fragment: str = "", *, wait: float = 60.0) -> None:
        """Open a file or an address and wait until the page is ready."""
        url = page if isinstance(page, str) else page.as_uri()
        self.events.clear()
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=url + fragment, wait=wait)
        if url != "about:blank":
            self.until("document.body && document.body.classList.contains('ready')", wait)

    def run(self, code: str) -> Any:
        """Return the value of an expression in the page, awaited."""
        result = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"])
        return result["result"].get("value")

    def until(self, code: str, wait: float = 20.0) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + wait
        while not self.run(code):
            if time.monotonic() > deadline:
                msg = f"never true: {code}"
                raise TimeoutError(msg)
            time.sleep(0.03)

    def text(self, selector: str) -> str:
        """Return the text of the first element of a selector, as it is seen."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def texts(self, selector: str) -> list[str]:
        """Return the texts of all elements of a selector."""
        found: list[str] = self.run(f"[...document.querySelectorAll({json.dumps(selector)})].map((e) => e.innerText)")
        return found

    def type(self, text: str) -> None:
        """Type letters."""
        for letter in text:
            self.call("Input.dispatchKeyEvent", type="keyDown", key=letter, text=letter)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=letter)

    def press(self, key: str) -> None:
        """Press a key."""
        code = KEYS.get(key, 0)
        kind = {"text": "\r"} if key == "Enter" else ({"text": key} if len(key) == 1 else {})
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **kind)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """Do something with the mouse at a place of the window."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def click_at(self, x: float, y: float) -> None:
        """Click a place of the window."""
        self.mouse("mouseMoved", x, y)
        self.mouse("mousePressed", x, y, button="left", buttons=1, clickCount=1)
        self.mouse("mouseReleased", x, y, button="left", clickCount=1)

    def click(self, selector: str) -> None:
        """Click the middle of an element."""
        code = (
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'nearest'});"
            " const b = e.getBoundingClientRect(); return [b.left + b.width / 2, b.top + b.height / 2]; })()"
        )
        self.click_at(*self.run(code))

    def drag(self, points: Sequence[tuple[float, float]]) -> None:
        """Press the mouse at the first place and release it at the last."""
        (x, y), *rest = points
        self.mouse("mouseMoved", x, y)
        self.mouse("mousePressed", x, y, button="left", buttons=1, clickCount=1)
        for x, y in rest:
            self.mouse("mouseMoved", x, y, button="left", buttons=1)
        self.mouse("mouseReleased", x, y, button="left", clickCount=1)

    def resize(self, width: int, height: int) -> None:
        """Set the size of the window in pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )

    def prefer(self, scheme: str) -> None:
        """Prefer ``dark`` or ``light``."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def cpu_seconds(self) -> float:
        """Return the CPU time that processes of pages have taken, all threads."""
        session, self.session = self.session, ""
        found = self.call("SystemInfo.getProcessInfo")["processInfo"]
        self.session = session
        return sum(float(p["cpuTime"]) for p in found if p["type"] == "renderer")

    def screenshot(self, path: Path) -> None:
        """Write what is seen as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def requests(self) -> list[str]:
        """Return the addresses that the page has asked for."""
        urls = [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith(("about:", "data:", "blob:"))]

    def complaints(self) -> list[str]:
        """Return errors, exceptions and dialogs."""
        told = {
            "Log.entryAdded": lambda p: f"{p['entry']['level']}: {p['entry']['text']}",
            "Runtime.exceptionThrown": lambda p: str(p["exceptionDetails"].get("exception", p["exceptionDetails"])),
            "Page.javascriptDialogOpening": lambda p: p["message"],
        }
        found = [told[e["method"]](e["params"]) for e in self.events if e.get("method") in told]
        return [text for text in found if "GPU stall due to ReadPixels" not in text]
