"""Takes the README's pictures from a real demo run: `python -m tests.web.pictures docs/pictures`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.web.test_browser import demo, question
from tests.web.webdriver import Browser, chromedriver

DESKTOP, PHONE = (1100, 860), (390, 844)


def take(browser: Browser, path: Path, size: tuple[int, int], *, dark: bool = False) -> None:
    """What fits into a window of this size."""
    browser.show(width=size[0], height=size[1], dark=dark)
    browser.picture(path, whole=False)


def approve(browser: Browser) -> None:
    before = question(browser)
    if browser.run("return !!document.querySelector('#confirm')"):
        browser.type("#confirm", "sandbox")
    browser.click("button[value=approve]")
    browser.wait(lambda: question(browser) != before, "the answer is taken")


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as state, demo(Path(state), "--fail", "db-1") as link, chromedriver() as new:
        browser = new()
        browser.open(link)
        browser.wait(lambda: "Upgrade Core of sandbox" in browser.text(), "gate core in the list")
        browser.click("#fleets a")
        browser.wait(lambda: "Upgrade Core" in question(browser), "gate core")
        take(browser, folder / "gate.png", DESKTOP)
        approve(browser)
        while "How to roll back" not in browser.text():
            browser.wait(lambda: question(browser) or "How to roll back" in browser.text(), "a gate or the end")
            if "left on" in question(browser):
                take(browser, folder / "failure.png", PHONE, dark=True)
                browser.click("button[value=retry]")
                browser.wait(lambda: "left on" not in question(browser), "the answer is taken")
            elif question(browser):
                approve(browser)
        take(browser, folder / "report.png", DESKTOP)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
