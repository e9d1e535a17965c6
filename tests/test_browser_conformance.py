"""The browser half's conformance suite, in real browsers: on their own WebSocket, and on ours.

Ours has to pass every check. The engine's own has to, too, but for its bugs, which are named here:
a check that both fail would be the suite's fault.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import conformance_server
import needs
from browsers import Browser
from processes import ROOT
from serving import Running, serving

pytestmark = pytest.mark.browser

PAGE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
<script type="module" src="harness.mjs"></script>"""

# What the engine's own WebSocket does otherwise than the standard says, by check.
BUGS: dict[str, dict[str, str]] = {
    "chromium": {
        "constructor: subprotocols that differ only in case": "are taken",
        "close: a code is rounded": "is cut off instead",
        "close: with a reason only, which goes nowhere": "counts as a code of 0",
    },
    "firefox": {
        "constructor: subprotocols that differ only in case": "are taken",
        "subprotocol: one that was not asked for": "is taken",
        "subprotocol: none where one was asked for": "is taken",
    },
    "webkit": {
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
WHERE = ("window", "worker", "shared")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """What the suite talks to; serves its page, and our object over the engine's WebSocket."""
    esbuild = ROOT / "browser" / "node_modules" / ".bin" / "esbuild"
    if not esbuild.exists():
        needs.unavailable("esbuild is missing (make browser installs it)")
    built = tmp_path_factory.mktemp("built")
    subprocess.run(
        [esbuild, "tests/over-native.ts", "--bundle", "--format=esm", f"--outdir={built}",
         "--out-extension:.js=.mjs", "--log-level=warning"],
        cwd=ROOT / "browser",
        check=True,
    )  # fmt: skip
    folders: tuple[Path, ...] = (
        conformance_server.SUITE,
        conformance_server.STATIC,
        built,
    )
    with serving(
        conformance_server.ROUTES,
        process_request=conformance_server.process_request,
        max_message_size=2 << 20,
        stop_timeout=1,
        app=conformance_server.files(*folders, pages={"page": PAGE}),
    ) as running:
        yield running


def run(
    browser: Browser, server: Running, where: str, which: str, only: str = ""
) -> dict[str, Any]:
    """Run the suite there, or `only` some of it; returns its results, and the interface's shape."""
    browser.driver.get(f"http://127.0.0.1:{server.port}/page")
    browser.driver.set_script_timeout(100)
    outcome: Any = browser.driver.execute_async_script(
        """const [job, done] = arguments;
        const wait = () => {
          if (!window.runSuite) return setTimeout(wait, 10);
          runSuite(job).then(done, (error) => done(String(error)));
        };
        wait();""",
        {"where": where, "which": which, "base": f"ws://127.0.0.1:{server.port}", "only": only},
    )
    browser.console_errors()  # the checks of refused connections leave many
    assert isinstance(outcome, dict), outcome
    assert len(outcome["results"]) > (0 if only else 60)
    return outcome


def errors(outcome: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["error"] for one in outcome["results"] if one["error"]}


@pytest.mark.parametrize("where", ["window", "worker"])
def test_the_engines_own(browser: Browser, server: Running, where: str) -> None:
    found = errors(run(browser, server, where, "native"))
    assert found.keys() == BUGS[browser.engine].keys(), found


@pytest.mark.parametrize("where", WHERE)
def test_over_http(browser: Browser, server: Running, where: str) -> None:
    native = run(browser, server, "window", "native", "shape")
    ours = run(browser, server, where, "./plainsocket.mjs?carrier=http")
    assert errors(ours) == {}
    assert ours["shape"] == native["shape"]


def test_our_object_over_the_engines_own(browser: Browser, server: Running) -> None:
    """All but what only the engine can do: judge a handshake, follow no redirect."""
    native = run(browser, server, "window", "native", "shape")
    ours = run(browser, server, "window", "./over-native.mjs")
    assert ours["shape"] == native["shape"]
    beneath = {
        "constructor: never throws for a port that is not allowed",
        "subprotocol: one that was not asked for",
        "request: a redirect is not followed",
    }
    assert errors(ours).keys() <= beneath & BUGS[browser.engine].keys()
