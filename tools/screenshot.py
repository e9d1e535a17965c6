"""Takes the picture of the demo page for the README: real traffic, in real Chromium.

PYTHONPATH=tests python tools/screenshot.py docs/demo.png
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from selenium.webdriver.chromium.webdriver import ChromiumDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

import browsers
import processes

CONVERSATION = [
    ("text", "Hello"),
    ("text", "Grüße · γειά · привет"),
    ("binary", "00 ff 10 c0 ff ee"),
    ("text", "The plain WebSocket, on both ends."),
    ("binary", "de ad be ef"),
]
PLOT_SECONDS = 60  # all that the plot shows


def take(picture: Path) -> None:
    with (
        tempfile.TemporaryDirectory() as scratch,
        processes.demo_server() as (_server, url),
        browsers.chromium(Path(scratch)) as chromium,
    ):
        driver = chromium.driver
        assert isinstance(driver, ChromiumDriver)
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": 1280, "height": 800, "deviceScaleFactor": 1.5, "mobile": False},
        )
        driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": "light"}]},
        )
        driver.get(url)
        wait = WebDriverWait(driver, 20)
        wait.until(lambda _: driver.find_element(By.ID, "state").text == "open")
        for kind, content in CONVERSATION:
            time.sleep(PLOT_SECONDS / len(CONVERSATION))
            Select(driver.find_element(By.ID, "format")).select_by_value(kind)
            driver.find_element(By.ID, "message").send_keys(content, Keys.ENTER)
        answers = (By.CSS_SELECTOR, ".received")
        wait.until(lambda _: len(driver.find_elements(*answers)) == len(CONVERSATION))
        Select(driver.find_element(By.ID, "format")).select_by_value("text")
        driver.execute_script("document.activeElement.blur()")
        picture.parent.mkdir(parents=True, exist_ok=True)
        driver.save_screenshot(str(picture))
        assert chromium.console_errors() == []


if __name__ == "__main__":
    take(Path(sys.argv[1]))
