"""The browser half's conformance suite, in real browsers: on their own WebSocket, and on ours.

Ours has to pass every check. The engine's own has to, too, but for its bugs, which are named here:
a check that both fail would be the suite's fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import conformance_server
from browsers import Browser
from serving import Running

pytestmark = pytest.mark.browser

PAGE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
<script type="module" src="harness.mjs"></script>"""

# What the engine's own WebSocket does otherwise than the standard says, by check.
OPTIONS = {"constructor: options as the second argument": "are not known yet"}
BUGS: dict[str, dict[str, str]] = {
    "chromium": {
        **OPTIONS,
        "constructor: subprotocols that differ only in case": "are taken",
        "close: a code is rounded": "is cut off instead",
        "close: with a reason only, which goes nowhere": "counts as a code of 0",
    },
    "firefox": {
        **OPTIONS,
        "constructor: subprotocols that differ only in case": "are taken",
        "subprotocol: none where one was asked for": "is taken",
    },
    "webkit": {
        **OPTIONS,
        "constructor: subprotocols that differ only in case": "are taken",
        "constructor: never throws for a port that is not allowed": "no event comes",
        "send: after the end": "bufferedAmount counts the bytes of the frames too",
        "send: a blob before close() is still sent": "what waits for a blob is lost",
        "close: a code is rounded": "is cut off instead",
        "close: with a reason only, which goes nowhere": "its length is not checked",
        "subprotocol: one in another case": "is taken",
        "subprotocol: none where one was asked for": "is taken",
        "request: a redirect is not followed": "is followed",
    },
}
# Those of them that do not show each time: WebKit may have read the blob before it closes.
SOMETIMES = {"send: a blob before close() is still sent"}
WHERE = ("window", "worker", "shared")


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """What the suite talks to; serves its page."""
    with conformance_server.serving_pages({"page": PAGE}) as running:
        yield running


def run(
    browser: Browser, server: Running, where: str, which: str, only: str = "", *, tls: bool = False
) -> dict[str, Any]:
    """Run the suite there, or `only` some of it; returns its results, and the interface's shape."""
    address = f"{'s' if tls else ''}://127.0.0.1:{server.port}"
    browser.driver.get(f"http{address}/page")
    browser.driver.set_script_timeout(100)
    outcome: Any = browser.driver.execute_async_script(
        """const [job, done] = arguments;
        const wait = () => {
          if (!window.runSuite) return setTimeout(wait, 10);
          runSuite(job).then(done, (error) => done(String(error)));
        };
        wait();""",
        {"where": where, "which": which, "base": f"ws{address}", "only": only},
    )
    browser.console_errors()  # the checks of refused connections leave many
    assert isinstance(outcome, dict), outcome
    assert len(outcome["results"]) > (0 if only else 60)
    return outcome


def errors(outcome: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["error"] for one in outcome["results"] if one["error"]}


@pytest.mark.parametrize("where", WHERE)
def test_the_engines_own(browser: Browser, server: Running, where: str) -> None:
    found = errors(run(browser, server, where, "native"))
    known = BUGS[browser.engine].keys()
    assert found.keys() - SOMETIMES == known - SOMETIMES, found
    assert found.keys() <= known, found


@pytest.mark.parametrize("where", WHERE)
def test_over_http(browser: Browser, server: Running, where: str) -> None:
    native = run(browser, server, "window", "native", "shape")
    ours = run(browser, server, where, "./plainsocket.mjs?carrier=http")
    assert errors(ours) == {}
    assert ours["shape"] == native["shape"]
