"""The demo page as a person uses it, in real browsers."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from browsers import Browser
from processes import demo_server

pytestmark = pytest.mark.browser

PATIENCE = 20.0  # seconds that the page has for anything
TABS = 30  # more than there are stops on the page


class DemoPage:
    """The page's controls and what it shows."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.browser = browser
        self.driver = browser.driver
        self.url = url

    def open(self) -> None:
        self.driver.get(self.url)
        self.wait_for_state("open")

    def element(self, name: str) -> WebElement:
        return self.driver.find_element(By.ID, name)

    def text(self, name: str) -> str:
        """What stands in an element, scrolled into view or not."""
        return str(self.element(name).get_property("textContent")).strip()

    def lines(self, kind: str, part: str = "") -> list[str]:
        """The text of the log's lines of one kind, or of one part of each."""
        lines: list[str] = self.driver.execute_script(
            "return Array.from(document.querySelectorAll(arguments[0]), (e) => e.textContent)",
            f"#log .line.{kind} {part}",
        )
        return lines

    def wait_until(self, what: str, condition: Callable[[], object]) -> None:
        try:
            WebDriverWait(self.driver, PATIENCE, poll_frequency=0.05).until(lambda _: condition())
        except TimeoutException:
            shown = self.driver.find_element(By.TAG_NAME, "main").text
            pytest.fail(f"no {what} in {PATIENCE:g} s; the page shows:\n{shown}")

    def wait_for_state(self, state: str) -> None:
        self.wait_until(f"state {state!r}", lambda: self.text("state") == state)

    def wait_for_close(self, code: int) -> None:
        self.wait_for_state("closed")
        assert self.text("close-code") == str(code)

    def wait_for_line(self, kind: str, content: str) -> None:
        self.wait_until(
            f"{kind} line with {content!r}",
            lambda: any(content in line for line in self.lines(kind)),
        )

    def wait_for_time(self, figure: str) -> None:
        self.wait_until(f"time in #{figure}", lambda: re.search(r"\d ms$", self.text(figure)))

    def send(self, message: str, *, binary: bool = False) -> None:
        Select(self.element("format")).select_by_value("binary" if binary else "text")
        self.element("message").send_keys(message)
        self.element("send").click()

    def press(self, *keys: str) -> None:
        """Press keys wherever the focus is; keys before the last are held down."""
        actions = ActionChains(self.driver)
        for key in keys[:-1]:
            actions.key_down(key)
        actions.send_keys(keys[-1])
        for key in keys[:-1]:
            actions.key_up(key)
        actions.perform()

    def tab_to(self, name: str, *held: str) -> None:
        """Move the focus to an element by nothing but the Tab key."""
        for _ in range(TABS):
            self.press(*held, Keys.TAB)
            if self.driver.switch_to.active_element.get_attribute("id") == name:
                break
        else:
            pytest.fail(f"{TABS} presses of Tab never came to #{name}")
        outline = self.driver.switch_to.active_element.value_of_css_property("outline-style")
        assert outline != "none", f"#{name} does not show that it has the focus"


@pytest.fixture
def page(browser: Browser, demo_url: str) -> Iterator[DemoPage]:
    """The demo page, connected; its console must be free of errors when the test is over."""
    page = DemoPage(browser, demo_url)
    page.open()
    yield page
    assert browser.console_errors() == []


def test_text_comes_back_with_its_round_trip_time(page: DemoPage) -> None:
    page.send("Grüße, 世界")
    page.wait_for_line("received", "Grüße, 世界")
    assert len(page.lines("sent")) == 1
    assert len(page.lines("received")) == 1
    (rtt,) = page.lines("received", ".rtt")
    assert re.search(r"\d ms$", rtt)


def test_binary_comes_back_with_its_round_trip_time(page: DemoPage) -> None:
    page.send("00 ff 10", binary=True)
    page.wait_for_line("received", "00 ff 10")
    page.wait_for_line("received", "3 bytes")
    (rtt,) = page.lines("received", ".rtt")
    assert re.search(r"\d ms$", rtt)


@pytest.mark.parametrize("carrier", ["native", "http"])
def test_each_carrier_can_be_forced(page: DemoPage, carrier: str) -> None:
    assert page.text("carrier-used") == "native"
    Select(page.element("carrier")).select_by_value(carrier)
    page.wait_until("carrier", lambda: page.text("carrier-used") == carrier)
    page.send("Grüße")
    page.wait_for_line("received", "Grüße")
    page.send("00 ff 10", binary=True)
    page.wait_for_line("received", "00 ff 10")
    page.wait_for_time("p50")
    page.element("disconnect").click()
    page.wait_for_close(1000)


def test_a_carrier_can_be_asked_for_by_the_address(page: DemoPage) -> None:
    page.driver.get(page.url + "?carrier=http")
    page.wait_for_state("open")
    assert page.text("carrier-used") == "http"
    page.send("quit")
    page.wait_for_close(1000)


def test_messages_come_back_in_order(page: DemoPage) -> None:
    messages = [f"message {n}" for n in range(20)]
    for message in messages:
        page.send(message)
    page.wait_for_line("received", messages[-1])
    # WebKit has shown the last line to one query, and not to the next one.
    page.wait_until("all of them", lambda: page.lines("received", ".payload") == messages)


def test_quit_ends_the_connection_and_connect_opens_another(page: DemoPage) -> None:
    page.send("quit")
    page.wait_for_close(1000)
    page.element("connect").click()
    page.wait_for_state("open")
    assert page.text("close-code") == ""
    page.send("again")
    page.wait_for_line("received", "again")


def test_disconnect_closes_normally(page: DemoPage) -> None:
    page.element("disconnect").click()
    page.wait_for_close(1000)


def test_a_refused_connection_is_told(page: DemoPage) -> None:
    url = page.element("url")
    url.clear()
    url.send_keys(page.url.replace("http:", "ws:") + "nowhere")
    page.element("connect").click()
    page.wait_for_close(1006)
    page.wait_for_line("error", "1006")
    page.browser.console_errors()  # the browser too complains, and rightly


def test_the_probe_measures_and_plots(page: DemoPage) -> None:
    for figure in ("p50", "p99", "http-p50"):
        page.wait_for_time(figure)
    colours: int = page.driver.execute_script(
        """const plot = document.getElementById("plot");
        const pixels = plot.getContext("2d").getImageData(0, 0, plot.width, plot.height).data;
        return new Set(new Uint32Array(pixels.buffer)).size;"""
    )
    assert colours > 1, "the plot is blank"
    assert page.lines("received") == [], "the probe's messages are not the user's"


def test_the_keyboard_is_enough(page: DemoPage) -> None:
    page.tab_to("message")
    page.press("by keyboard")
    page.press(Keys.ENTER)
    page.wait_for_line("received", "by keyboard")

    page.tab_to("format")
    page.press("b")  # chooses "Binary"
    page.tab_to("message", Keys.SHIFT)
    page.press("c0 ff ee")
    page.tab_to("send")
    page.press(Keys.SPACE)
    page.wait_for_line("received", "c0 ff ee")

    page.tab_to("disconnect", Keys.SHIFT)
    page.press(Keys.ENTER)
    page.wait_for_close(1000)
    page.tab_to("connect", Keys.SHIFT)
    page.press(Keys.ENTER)
    page.wait_for_state("open")


def test_a_narrow_screen_needs_no_sideways_scrolling(page: DemoPage) -> None:
    # In a frame, because no engine makes its window as narrow as a telephone.
    page.driver.execute_script(
        """const frame = document.createElement("iframe");
        frame.style = "position: fixed; inset: 0; width: 360px; height: 740px; border: 0";
        frame.src = location.href;
        document.body.append(frame);"""
    )
    page.driver.switch_to.frame(page.driver.find_element(By.TAG_NAME, "iframe"))
    page.wait_for_state("open")
    page.send("a long word: " + "w" * 100)
    page.send("00 " * 64, binary=True)
    page.wait_for_line("received", "64 bytes")
    assert page.driver.execute_script("return innerWidth") == 360
    too_wide: list[str] = page.driver.execute_script(
        """const root = document.documentElement;
        const names = root.scrollWidth > root.clientWidth ? ["the page"] : [];
        for (const element of document.querySelectorAll("body *")) {
            const { left, right, width } = element.getBoundingClientRect();
            if (width && !element.closest("pre") && (left < 0 || right > root.clientWidth)) {
                names.push(`${element.tagName} #${element.id} .${element.className}`);
            }
        }
        return names;"""
    )
    assert too_wide == []
    page.driver.switch_to.default_content()


def test_a_server_that_is_stopped_says_goodbye(browser: Browser) -> None:
    with demo_server() as (server, url):
        page = DemoPage(browser, url)
        page.open()
        assert server.interrupt() == 0
        page.wait_for_close(1001)


def test_other_addresses_are_not_found(demo_url: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404") as refusal:
        urllib.request.urlopen(demo_url + "nowhere", timeout=PATIENCE)
    refusal.value.close()
