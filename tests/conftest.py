"""Fixtures that many tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

import browsers
import plainsocket
import processes

pytest_plugins = ["works_with"]


# Each run tries the same examples, so that a run fails by what was changed and by nothing else.
# HYPOTHESIS_PROFILE=default looks for new ones, and `make fuzz` does so for as long as one likes.
# Nor does it fail by what else the machine has to do.
hypothesis.settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


def pytest_configure() -> None:
    hear_interrupts()
    refuse_what_is_stale()


def hear_interrupts() -> None:
    """A shell lets background jobs ignore SIGINT, and programs under test would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def refuse_what_is_stale() -> None:
    """Refuse to test a compiled core that was built from older sources."""
    package = Path(plainsocket.__file__).parent
    if plainsocket.frames.IS_COMPILED:
        headers = [*package.rglob("*.h")]
        for built in package.rglob("*.so"):
            stem = built.with_name(built.name.partition(".")[0])
            for source in [stem.with_suffix(".py"), stem.with_suffix(".pxd"), *headers]:
                if source.exists() and source.stat().st_mtime > built.stat().st_mtime:
                    pytest.exit(f"{source.name} is newer than what was built of it: run make")


@pytest.fixture(scope="session", params=browsers.ENGINES)
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[browsers.Browser]:
    """Each engine in turn, started once for all the tests that want it."""
    with browsers.browser(request.param, tmp_path_factory.mktemp(request.param)) as started:
        yield started


@pytest.fixture
def browser(engine: browsers.Browser) -> Iterator[browsers.Browser]:
    """A browser with nothing open, left with nothing open."""
    engine.console_errors()
    yield engine
    engine.driver.get("about:blank")


@pytest.fixture(scope="session")
def demo_url() -> Iterator[str]:
    """The address of one demo server for all the tests that only look at its page."""
    with processes.demo_server() as (_program, url):
        yield url
