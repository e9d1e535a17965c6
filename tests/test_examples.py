"""The programs in examples/, unchanged, as their README files say to run them."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable

import pytest
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from browsers import Browser
from needs import unavailable
from processes import ROOT, running

pytestmark = pytest.mark.browser

PATIENCE = 20.0  # seconds that the page has for anything


def need_free_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            unavailable(f"port {port}, which the example binds, is taken: {error.strerror}")


def wait_for_listener(port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, f"nothing listens on port {port}"
            time.sleep(0.05)
        else:
            return


def test_echo(browser: Browser) -> None:
    need_free_port(8087)
    folder = ROOT / "examples" / "echo"
    driver = browser.driver

    def wait_for(what: str, condition: Callable[[], bool]) -> None:
        try:
            WebDriverWait(driver, PATIENCE, poll_frequency=0.05).until(lambda _: condition())
        except TimeoutException:
            pytest.fail(f"no {what} in {PATIENCE:g} s; state: {state()!r}, echoes: {messages()}")

    def state() -> str:
        return driver.find_element(By.ID, "state").text

    def messages() -> list[str]:
        return [line.text for line in driver.find_elements(By.CSS_SELECTOR, "#messages li")]

    with (
        running(sys.executable, "-u", "server.py", cwd=folder) as server,
        # Port 0 instead of the README's 8000: any port will do for the page.
        running(
            sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", cwd=folder
        ) as page_server,
    ):
        server.wait_for("port 8087")
        wait_for_listener(8087)  # a moment later
        driver.get(page_server.wait_for(r"http://127\.0\.0\.1:\d+/").group())
        wait_for("connection", lambda: state() == "open")
        server.wait_for(r"^connected: .*127\.0\.0\.1")

        message = driver.find_element(By.ID, "message")
        for text in ("Hello", "Grüße"):
            message.send_keys(text, Keys.ENTER)
        wait_for("two echoes", lambda: messages() == ["Hello", "Grüße"])
        server.wait_for("received: Grüße")

        message.send_keys("quit", Keys.ENTER)
        wait_for("normal close", lambda: state() == "closed (1000)")
        server.wait_for(r"^disconnected: .*127\.0\.0\.1")
        assert "Traceback" not in server.output
    assert browser.console_errors() == []
