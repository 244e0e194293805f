"""A person upgrades the demo's fleet in a real browser; what the page must not do is tried in the same browser."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.web.webdriver import DRIVER, Browser, chromedriver

pytestmark = pytest.mark.skipif(DRIVER is None, reason="no chromedriver: apt-get install chromium chromium-driver")

ROOT = Path(__file__).parent.parent.parent
AXE = Path(os.environ.get("KOMODO_UPGRADE_AXE") or ROOT / "build" / "axe-core" / "package" / "axe.min.js")
"""The accessibility checker, from npm's package axe-core (.ci/run fetches it)."""
WIDTHS = (1100, 390)
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")


@contextlib.contextmanager
def demo(folder: Path, *arguments: str) -> Iterator[str]:
    """The link of a running `demo --dashboard`."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("TEMPORAL_")}
    env |= {"KOMODO_UPGRADE_STATE": str(folder), "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    command = [sys.executable, "-m", "starter", "demo", "--dashboard", *arguments]
    with (folder / "demo.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout
        link = process.stdout.readline().strip()
        assert link.startswith("http://127.0.0.1:"), (folder / "demo.log").read_text()
        yield link
        process.send_signal(signal.SIGINT)
        assert process.wait(240) == 0, (folder / "demo.log").read_text()
        assert "upgraded after" in process.stdout.read()
    finally:
        process.kill()
        process.wait()


def question(browser: Browser) -> str:
    return str(browser.run("return document.querySelector('#question')?.textContent || ''"))


def no_overflow(browser: Browser) -> None:
    """Nothing is wider than the window, on a desktop and on a phone, light and dark."""
    for width in WIDTHS:
        for dark in (False, True):
            browser.show(width=width, dark=dark)
            wide, background = browser.run(
                "return [document.documentElement.scrollWidth, getComputedStyle(document.body).backgroundColor]"
            )
            assert wide <= width
            assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 200) is dark


def accessible(browser: Browser) -> None:
    """Without axe-core: every field has a label, every control a name, headings do not skip a level."""
    if AXE.exists():
        found = browser.do(
            "/execute/async",
            script=AXE.read_text() + "; axe.run({runOnly: arguments[0]}).then(r => arguments[1](r.violations.map(v => "
            "[v.id, v.nodes.map(n => [n.html, n.failureSummary])])), e => arguments[1]([String(e)]))",
            args=[RULES],
        )
        assert not found, found
    bare = browser.run(
        "return [...document.querySelectorAll('input:not([type=hidden]), button:not([hidden]), a, summary, table')]"
        ".filter(e => !(e.labels?.length || e.textContent.trim() || e.caption)).map(e => e.outerHTML)"
    )
    assert not bare
    levels = browser.run("return [...document.querySelectorAll('h1,h2,h3,h4')].map(e => +e.tagName[1])")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels)), levels


def test_a_person_upgrades_a_fleet_in_a_browser(tmp_path: Path) -> None:
    with demo(tmp_path, "--servers", "3", "--fail", "db-1") as link, chromedriver() as new:
        browser = new()
        browser.open(link)
        browser.wait(lambda: browser.run("return document.title") == "Fleets", "the list of fleets")
        a_stranger_sees_nothing(new, link, browser.run("return location.href"))
        browser.wait(lambda: "Upgrade Core of sandbox to 2.3.2?" in browser.text(), "gate core in the list")
        browser.click("#fleets a")

        gate_core(browser)
        scripts_of_others_do_not_run(browser)
        without_javascript(browser)
        browser.wait(lambda: "upgrade wave 2" in question(browser).lower(), "gate wave/2")
        unmanaged = re.compile(r"unmanaged by Core\s+2 for \d+ (s|min)\b")  # minutes on a slow machine
        browser.wait(lambda: unmanaged.search(browser.text()), "the unmanaged servers")
        by_keyboard(browser, "approve")
        browser.wait(lambda: "db-1 is left on v1" in question(browser), "the failure gate")
        no_overflow(browser)
        accessible(browser)
        by_keyboard(browser, "retry")
        browser.wait(lambda: "How to roll back" in browser.text(), "the report")
        assert browser.run("return document.querySelectorAll('svg rect.unmanaged').length") >= 3
        no_overflow(browser)
        accessible(browser)
        assert not [line for line in browser.log() if "Content Security Policy" in line]


def a_stranger_sees_nothing(new: Callable[[], Browser], link: str, inside: str) -> None:
    """A second browser: the link is used up, and the pages need its cookie."""
    other = new()
    for url in (
        link,
        inside,
        f"{inside}fleets/sandbox",
        f"{inside}events",
        "{0.scheme}://{0.netloc}/".format(urlsplit(link)),
    ):
        other.open(url)
        text = other.text()
        assert "link" in text
        assert "sandbox" not in text
    other.end()


def gate_core(browser: Browser) -> None:
    browser.wait(lambda: "Upgrade Core" in question(browser), "gate core")
    for part in ("Warnings", "the database's image mongo has no version", "this approval includes the canary"):
        assert part in browser.text()
    browser.click("details.changes summary")
    diff = browser.run("return document.querySelector('pre.diff').innerText")
    assert re.search(r"^\+", diff, re.MULTILINE)
    no_overflow(browser)
    accessible(browser)
    assert browser.run("return performance.getEntriesByType('resource').every(e => e.name.startsWith(location.origin))")


def scripts_of_others_do_not_run(browser: Browser) -> None:
    """What a text from a host could contain, if escaping failed: the policy stops it, too."""
    browser.run(
        "const p = document.createElement('p'); p.innerHTML = "
        '\'<img src=x onerror="window.stolen = 1"><b style="position: fixed">x</b>\'; document.body.append(p);'
        "const s = document.createElement('script'); s.textContent = 'window.stolen = 2'; document.body.append(s);"
        "const t = document.createElement('script'); t.src = 'https://cdn.example/x.js'; document.body.append(t);"
    )
    browser.run("fetch('https://evil.example/').catch(() => window.blocked = true)")
    browser.wait(lambda: browser.run("return window.blocked"), "the request is blocked")
    assert browser.run("return window.stolen") is None
    blocked = "\n".join(line for line in browser.log() if "Content Security Policy" in line)
    for kind in ("script-src", "style-src", "connect-src"):
        assert kind in blocked


def without_javascript(browser: Browser) -> None:
    """The gate `core` is answered by a page that runs no script: a wrong name, then the right one."""
    browser.cdp("Emulation.setScriptExecutionDisabled", value=True)
    browser.do("/refresh")
    browser.type("#confirm", "prod")
    browser.submit("button[value=approve]")
    assert "prod is not the name of this fleet" in browser.text()
    assert "Upgrade Core" in question(browser)
    browser.type("#reason", "checked")
    browser.type("#confirm", "sandbox")
    browser.submit("button[value=approve]")
    assert "Your answer was accepted." in browser.text()
    browser.cdp("Emulation.setScriptExecutionDisabled", value=False)
    browser.do("/refresh")
    browser.wait(lambda: re.search(r"gate core: approve by \S+: checked", browser.text()), "the decision")


def by_keyboard(browser: Browser, verdict: str) -> None:
    """From the reason's field: Enter there answers nothing, Tab leads to the button."""
    before = question(browser)
    browser.run("document.querySelector('#reason').focus()")
    browser.press("o", "k", "Enter")
    assert question(browser) == before
    browser.press("Tab")
    for _ in range(5):
        if browser.run("return document.activeElement.value") == verdict:
            break
        browser.press("Tab")
    assert browser.run("return getComputedStyle(document.activeElement).outlineStyle") != "none"
    browser.press("Enter")
    browser.wait(lambda: question(browser) != before, f"{verdict} is taken")
