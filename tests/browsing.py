"""A browser that is installed, and people before it."""

import shutil
import time
from collections.abc import Callable
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FOUND = next(filter(None, map(shutil.which, BROWSERS)), None)
SLOW_S = 120.0  # on a machine that has much else to do
MARKS = [
    pytest.mark.browser,
    pytest.mark.skipif(FOUND is None, reason=f"needs a browser: one of {', '.join(BROWSERS)}"),
    pytest.mark.timeout(400),
]


class Person:
    """Somebody before the page, in a browser profile of their own.

    Args:
        browser: of Playwright.
        link: of the invitation.
        **profile: of the browser, such as its size.
    """

    def __init__(self, browser: Any, link: str, **profile: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 900, "height": 700}, **profile})
        self.page = self.context.new_page()
        self.problems: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", lambda request: self._note(request.url))
        self._origin = link.partition("/join")[0]
        self.page.goto(link)
        self.page.wait_for_selector("#stage img", timeout=1000 * SLOW_S)

    def _note(self, url: str) -> None:
        if not url.startswith((self._origin, "data:")):
            self.problems.append(f"asks {url}")

    def shown(self) -> int:
        """The id of the image on the screen, once there is one."""
        self.page.wait_for_selector("#stage[data-id] img", timeout=1000 * SLOW_S)
        return int(self.page.get_attribute("#stage", "data-id"))

    def press(self, *keys: str) -> list[int]:
        """Presses keys, each when there is an image; returns the ids that they were pressed at."""
        ids = []
        for key in keys:
            ids.append(self.shown())
            self.page.keyboard.press(key)
        return ids

    def sent(self) -> None:
        """Waits until the server has all that was done here."""
        self.until(lambda: not self.page.evaluate("Object.keys(localStorage).length"))

    def until(self, condition: Callable[[], object]) -> None:
        """Waits for what a page comes to; its policy forbids what Playwright would have it evaluate."""
        deadline = time.monotonic() + SLOW_S
        while not condition():
            assert time.monotonic() < deadline, self.page.inner_text("body")
            self.page.wait_for_timeout(50)
