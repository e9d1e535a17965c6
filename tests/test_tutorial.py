"""Every code block of the documents, run as a reader runs it.

A block is named by its `title="…"`; what no test asks for by its name fails
`test_every_block_is_run`. A reader's folder is made of the blocks thus:

- `server.py`, `index.html`: a file of that name;
- `server.py: …`: replaces the call of `plainsocket.serve`, which ends that file;
- `index.html: …`: replaces the functions of the same names in that file;
- any other name: no file; the test sees to it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
import trustme
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect, unix_connect
from websockets.typing import Origin, Subprotocol

import needs
from browsers import Browser
from page import Page as HTTPPage
from plainsocket import Options
from plainsocket.cli import _parser
from ports import free_port
from processes import ROOT, START, Program, running
from proxies import chromium_behind, squid
from serving import wait_until
from trust import trusting

PATIENCE = 20.0  # seconds that anything may take
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/tutorial.md",
    "docs/deploy.md",
    "docs/compression.md",
    "docs/streaming.md",
    "docs/broadcast.md",
    "docs/security.md",
    "docs/frameworks.md",
    "docs/client.md",
    "docs/when-websocket-is-blocked.md",
)
PYTEST = ".venv/bin/pytest"
HTTP_SERVER = "python -m http.server 8000 --bind 127.0.0.1"
RUN = "plainsocket run --reload chat:app"

# -- the blocks ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A fenced code block."""

    language: str
    name: str  # empty where it has no title
    text: str


def blocks_of(document: str) -> list[Block]:
    text = (ROOT / document).read_text()
    blocks = []
    fence = re.compile(
        r'^(?P<indent> *)```(?P<language>\w+)(?: title="(?P<name>[^"]+)")?\n(?P<text>.*?)^ *```$',
        re.MULTILINE | re.DOTALL,
    )
    for match in fence.finditer(text):
        content = re.sub(rf"^{match['indent']}", "", match["text"], flags=re.MULTILINE)
        blocks.append(Block(match["language"], match["name"] or "", content))
    # A block that the pattern does not see must not go unnoticed.
    assert len(re.findall(r"^ *(?:```|~~~)", text, re.MULTILINE)) == 2 * len(blocks), document
    return blocks


BLOCKS = {document: blocks_of(document) for document in DOCUMENTS}

asked_for: set[tuple[str, str]] = set()


def uses(document: str, *names: str) -> pytest.MarkDecorator:
    """Gives a test the fixture `folder`, made of these blocks in this order."""
    asked_for.update((document, name) for name in names)
    return pytest.mark.parametrize(
        "folder", [(document, names)], indirect=True, ids=["+".join(names)]
    )


def text_of(document: str, name: str) -> str:
    """A block that a test looks at without a folder. To be called when this module is imported."""
    asked_for.add((document, name))
    (text,) = (block.text for block in BLOCKS[document] if block.name == name)
    return text


@dataclass
class Folder:
    """A reader's folder; the ports that the text names are replaced by free ones."""

    path: Path
    port: int  # the text's 8087
    other_port: int  # the text's 8000
    texts: dict[str, str] = field(default_factory=dict)  # the blocks that are no files

    def add(self, block: Block) -> None:
        name, _, variant = block.name.partition(": ")
        path = self.path / name
        text = self.with_ports(block.text)
        if variant and path.suffix == ".py":
            text = replace_serve(path.read_text(), text)
        elif variant:
            text = replace_functions(path.read_text(), text)
        elif path.suffix not in (".py", ".html"):
            self.texts[block.name] = text
            return
        path.write_text(text)

    def with_ports(self, text: str) -> str:
        ports = {"8087": str(self.port), "8000": str(self.other_port)}  # which may hold the other
        return re.sub("|".join(ports), lambda found: ports[found[0]], text)


def replace_serve(program: str, call: str) -> str:
    replaced, count = re.subn(
        r"^plainsocket\.serve\(.*\Z", lambda _: call, program, flags=re.MULTILINE | re.DOTALL
    )
    assert count == 1
    return replaced


def replace_functions(page: str, script: str) -> str:
    names = re.findall(r"^function (\w+)", script, re.MULTILINE)
    position = -1
    for name in reversed(names):
        (old,) = re.finditer(rf"^function {name}\(.*?^}}\n", page, re.MULTILINE | re.DOTALL)
        position = old.start()
        page = page[:position] + page[old.end() :]
    assert position >= 0, "it defines no function"
    return page[:position] + script + page[position:]


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    document, names = request.param
    folder = Folder(tmp_path, free_port(), free_port())
    blocks = {block.name: block for block in BLOCKS[document]}
    for name in names:
        folder.add(blocks[name])
    return folder


# -- what runs them ------------------------------------------------------------------------------


@contextmanager
def serving(folder: Folder, name: str) -> Iterator[Program]:
    """Run a program of the folder; it must end well on Ctrl-C, and without a traceback."""
    with running(sys.executable, "-u", name, cwd=folder.path) as program:
        wait_for_port(program, folder.port)
        yield program
        assert program.interrupt() == 0, program.output
        assert "Traceback" not in program.output, program.output


def wait_for_port(program: Program, port: int) -> None:
    deadline = time.monotonic() + START
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE).close()
        except OSError:
            if time.monotonic() > deadline or "Error" in program.output:
                pytest.fail(f"{program.arguments} does not listen:\n{program.output}")
            time.sleep(0.02)
        else:
            return


@contextmanager
def http_server(folder: Folder) -> Iterator[None]:
    """Run the text's other web server in the folder."""
    _python, *arguments = shlex.split(folder.with_ports(HTTP_SERVER))
    with running(sys.executable, "-u", *arguments, cwd=folder.path) as program:
        wait_for_port(program, folder.other_port)
        yield


def client(
    folder: Folder,
    path: str = "/ws",
    origin: str | None = None,
    headers: Mapping[str, str] | None = None,
    subprotocols: Sequence[str] | None = None,
) -> ClientConnection:
    return connect(
        f"ws://127.0.0.1:{folder.port}{path}",
        origin=None if origin is None else Origin(origin),
        additional_headers=headers,
        subprotocols=None if subprotocols is None else [Subprotocol(s) for s in subprotocols],
        open_timeout=PATIENCE,
        close_timeout=PATIENCE,
        proxy=None,
    )


def close_of(peer: ClientConnection) -> tuple[int, str]:
    """Close code and reason, once the server has closed."""
    with pytest.raises(ConnectionClosed) as closed:
        peer.recv(timeout=PATIENCE)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


@dataclass
class Page:
    """The tutorial's page in a browser."""

    browser: Browser
    folder: Folder

    def open(self, url: str = "") -> None:
        self.browser.driver.get(url or f"http://127.0.0.1:{self.folder.port}/")

    def text(self, selector: str) -> str:
        return self.browser.driver.find_element(By.CSS_SELECTOR, selector).text

    @property
    def messages(self) -> list[str]:
        return [line.text for line in self.browser.driver.find_elements(By.CSS_SELECTOR, "li")]

    def send(self, text: str) -> None:
        self.browser.driver.find_element(By.ID, "input").send_keys(text, Keys.ENTER)

    def wait_until(self, condition: Callable[[], object]) -> None:
        try:
            WebDriverWait(self.browser.driver, PATIENCE, poll_frequency=0.05).until(
                lambda _: condition()
            )
        except TimeoutException:
            pytest.fail(f"not in {PATIENCE:g} s; the page shows:\n{self.text('body')}")

    def wait_for_state(self, state: str) -> None:
        self.wait_until(lambda: self.text("#state") == state)

    def wait_for_title(self, title: str) -> None:
        self.wait_until(lambda: self.browser.driver.title == title)

    def wait_for_messages(self, *messages: str) -> None:
        self.wait_until(lambda: self.messages == list(messages))


@pytest.fixture
def page(browser: Browser, folder: Folder) -> Page:
    return Page(browser, folder)


# -- the documents as such -----------------------------------------------------------------------


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_is_run(document: str) -> None:
    names = [block.name for block in BLOCKS[document] if block.language != "sh"]
    assert sorted(names) == sorted(set(names)), "each block has a title of its own"
    assert set(names) == {name for where, name in asked_for if where == document}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_can_be_given(document: str) -> None:
    files = {block.name for block in BLOCKS[document]}
    makefile = (ROOT / "Makefile").read_text()
    blocks = [block.text for block in BLOCKS[document] if block.language == "sh"]
    for line in "".join(blocks).splitlines():
        words = shlex.split(line, comments=True)
        if "plainsocket" in words:
            _parser().parse_args(words[words.index("plainsocket") + 1 :])
        elif words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), line
        elif words[0] == "python" and line != HTTP_SERVER:
            assert len(words) == 2, line
            assert words[1] in files, line
        elif words[0] == "curl":
            assert line in CURL, line
        elif words[0] != PYTEST:
            known = (
                HTTP_SERVER,
                "mkdir first",
                "cd first",
                "python3 -m venv venv",
                ". venv/bin/activate",
                "pip install .",
                "pip install ../plainsocket",
                RUN,
            )
            assert line in known, line


@pytest.mark.slow
def test_the_ways_to_run_a_single_test_find_one() -> None:
    blocks = [block.text for block in BLOCKS["CONTRIBUTING.md"] if block.language == "sh"]
    commands = [words for line in "".join(blocks).splitlines() if (words := shlex.split(line))]
    commands = [words for words in commands if words[0] == PYTEST]
    assert commands
    for _pytest, *arguments in commands:
        collect = [sys.executable, "-m", "pytest", "--collect-only", "--quiet", *arguments]
        subprocess.run(collect, cwd=ROOT, check=True)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_within_the_project_leads_somewhere(document: str) -> None:
    text = re.sub(r"^ *```.*?^ *```$", "", (ROOT / document).read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / document).parent.joinpath(target).exists(), target


def test_the_table_has_every_option_with_its_default() -> None:
    text = (ROOT / "docs/deploy.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)`", text, re.MULTILINE)
    defaults = Options()
    assert rows == [
        (option.name, repr(getattr(defaults, option.name)))
        for option in dataclasses.fields(defaults)
    ]


# -- README --------------------------------------------------------------------------------------


@uses("README.md", "server.py")
def test_the_readmes_server(folder: Folder) -> None:
    with serving(folder, "server.py"), client(folder, "/echo") as peer:
        peer.send("Hello")
        assert peer.recv(timeout=PATIENCE) == "Hello"


@uses("README.md", "server.py", "client.py")
def test_the_readmes_client(folder: Folder) -> None:
    with serving(folder, "server.py"):
        assert run_client(folder, "client.py") == "Hello\n"


@uses("README.md", "endpoint.py")
def test_the_readmes_endpoint(folder: Folder) -> None:
    with serving(folder, "endpoint.py"), client(folder, "/echo") as peer:
        peer.send("Hello")
        assert peer.recv(timeout=PATIENCE) == "Hello"


@pytest.mark.browser
@uses("README.md", "server.py", "index.html")
def test_the_readmes_page(folder: Folder, page: Page) -> None:
    with serving(folder, "server.py"), http_server(folder):
        page.open(f"http://127.0.0.1:{folder.other_port}/")
        page.wait_until(lambda: page.text("#log") == "Hello")


@uses("README.md", "wsgi.py")
def test_the_readmes_program_of_2011(folder: Folder) -> None:
    with running(sys.executable, "-u", "wsgi.py", cwd=folder.path) as program:
        wait_for_port(program, folder.port)
        with client(folder) as peer:
            peer.send("Hello")
            assert peer.recv(timeout=PATIENCE) == "Hello"
        assert "Traceback" not in program.output


# -- the tutorial --------------------------------------------------------------------------------

TUTORIAL = "docs/tutorial.md"


@uses(TUTORIAL, "server.py", "index.html")
def test_the_first_server(folder: Folder) -> None:
    with serving(folder, "server.py"):
        with client(folder) as peer:
            for message in ("Hello", "Grüße", b"\x00\xff"):
                peer.send(message)
                assert peer.recv(timeout=PATIENCE) == message
        address = f"http://127.0.0.1:{folder.port}/any"
        with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
            assert answer.read() == folder.path.joinpath("index.html").read_bytes()


@pytest.mark.browser
@uses(TUTORIAL, "server.py", "index.html", "stopped")
def test_the_first_page(folder: Folder, page: Page) -> None:
    with serving(folder, "server.py"):
        page.open()
        page.wait_for_state("open")
        page.send("Hello")
        page.send("<i>Grüße</i>")
        page.wait_for_messages("Hello", "<i>Grüße</i>")
        assert page.browser.console_errors() == []
    page.wait_until(lambda: page.text("p") == folder.texts["stopped"].strip())


@pytest.mark.browser
@uses(TUTORIAL, "server.py", "index.html", "index.html: connect again")
def test_connecting_again(folder: Folder, page: Page) -> None:
    with serving(folder, "server.py"):
        page.open()
        page.wait_for_state("open")
    page.wait_until(lambda: page.text("#state").startswith("closed, 1006"))
    with serving(folder, "server.py"):
        page.wait_for_state("open")
        page.send("Hello again")
        page.wait_for_messages("Hello again")


@uses(TUTORIAL, "shout.py")
def test_json(folder: Folder) -> None:
    with serving(folder, "shout.py"):
        with client(folder) as peer:
            peer.send('{"text": "Hello"}')
            assert peer.recv(timeout=PATIENCE) == '{"from": "server", "text": "HELLO"}'
        for bad in ("Hello", "[]", "{}", b"\xff"):
            with client(folder) as peer:
                peer.send(bad)
                assert close_of(peer) == (4000, 'send {"text": "..."}')


PAGE = ("index.html", "index.html: connect again", "index.html: JSON")


@pytest.mark.browser
@uses(TUTORIAL, *PAGE, "shout.py")
def test_json_in_the_page(folder: Folder, page: Page) -> None:
    with serving(folder, "shout.py"):
        page.open()
        page.wait_for_state("open")
        page.send("Hello")
        page.wait_for_messages("server: HELLO")
        assert page.browser.console_errors() == []


def ticks_and_answers(folder: Folder) -> None:
    arrivals: list[float] = []
    with client(folder) as peer:
        peer.send("any")
        answers = 0
        while len(arrivals) < 3:
            message = str(peer.recv(timeout=PATIENCE))
            if re.search(r'"text": "\d\d:\d\d:\d\d"', message):
                arrivals.append(time.monotonic())
            else:
                assert "I only tell the time." in message
                answers += 1
    assert answers == 1
    assert arrivals[2] - arrivals[0] > 1.8


@pytest.mark.slow
@uses(TUTORIAL, "clock.py")
def test_sending_without_being_asked(folder: Folder) -> None:
    with serving(folder, "clock.py"):
        ticks_and_answers(folder)
        time.sleep(1.2)  # so that the clock's greenlet meets the end of its connection


@pytest.mark.slow
@uses(TUTORIAL, "clock.py", "patched")
def test_what_waits_by_pythons_own_means(folder: Folder) -> None:
    program = folder.path / "clock.py"
    text = program.read_text().replace("gevent.sleep(1)", "time.sleep(1)")
    program.write_text(folder.texts["patched"] + text)
    with serving(folder, "clock.py"):
        ticks_and_answers(folder)


@pytest.mark.browser
@uses(TUTORIAL, *PAGE, "clock.py")
def test_the_clock_in_the_page(folder: Folder, page: Page) -> None:
    with serving(folder, "clock.py"):
        page.open()
        page.wait_until(lambda: len(page.messages) >= 2)
        page.send("any")
        page.wait_until(lambda: "clock: I only tell the time." in page.messages)


@uses(TUTORIAL, "chat.py")
def test_sending_to_everybody(folder: Folder) -> None:
    def said(name: str, text: str) -> str:
        return f'{{"from": "{name}", "text": "{text}"}}'

    with serving(folder, "chat.py"), client(folder) as first:
        assert first.recv(timeout=PATIENCE) == said("guest 1", "has come in")
        with client(folder) as second:
            for peer in (first, second):
                assert peer.recv(timeout=PATIENCE) == said("guest 2", "has come in")
            second.send('{"text": "Hello"}')
            for peer in (first, second):
                assert peer.recv(timeout=PATIENCE) == said("guest 2", "Hello")
        assert first.recv(timeout=PATIENCE) == said("guest 2", "has left")
        first.send('{"text": "alone"}')
        assert first.recv(timeout=PATIENCE) == said("guest 1", "alone")


@pytest.mark.browser
@uses(TUTORIAL, *PAGE, "chat.py")
def test_the_chat_in_two_windows(folder: Folder, page: Page) -> None:
    driver = page.browser.driver
    with serving(folder, "chat.py"):
        page.open()
        page.wait_for_messages("guest 1: has come in")
        first = driver.current_window_handle
        driver.switch_to.new_window("window")
        try:
            page.open()
            page.wait_for_messages("guest 2: has come in")
            page.send("Hello")
            page.wait_for_messages("guest 2: has come in", "guest 2: Hello")
        finally:
            driver.close()
            driver.switch_to.window(first)
        page.wait_for_messages(
            "guest 1: has come in",
            "guest 2: has come in",
            "guest 2: Hello",
            "guest 2: has left",
        )


@uses(TUTORIAL, "quiz.py")
def test_an_answer_in_time(folder: Folder) -> None:
    with serving(folder, "quiz.py"):
        for answer, verdict in (("56", "Right."), ("54", "Wrong.")):
            with client(folder) as peer:
                assert "7 * 8" in str(peer.recv(timeout=PATIENCE))
                peer.send(f'{{"text": "{answer}"}}')
                assert verdict in str(peer.recv(timeout=PATIENCE))
                assert close_of(peer) == (1000, "")
        with client(folder) as peer:
            peer.recv(timeout=PATIENCE)  # and leave without an answer


@pytest.mark.browser
@pytest.mark.slow
@uses(TUTORIAL, *PAGE, "quiz.py")
def test_an_answer_too_late(folder: Folder, page: Page) -> None:
    with serving(folder, "quiz.py"):
        page.open()
        page.wait_for_state("closed, 1000")
        expected = ["quiz: What is 7 * 8? You have five seconds.", "quiz: Too late."]
        assert page.messages == expected
        time.sleep(1)  # longer than the page waits before it connects again
        assert page.messages == expected


@pytest.mark.browser
@uses(TUTORIAL, "server.py", "elsewhere.html", "refused")
def test_a_page_from_elsewhere(folder: Folder, page: Page) -> None:
    with serving(folder, "server.py") as program, http_server(folder):
        page.open(f"http://127.0.0.1:{folder.other_port}/elsewhere.html")
        page.wait_for_state("open")
        page.open(f"http://localhost:{folder.other_port}/elsewhere.html")
        page.wait_for_state("closed, 1006")
        without_port = re.sub(r"^127\.0\.0\.1:\d+", "", folder.texts["refused"].strip())
        program.wait_for(re.escape(without_port))
        page.open((folder.path / "elsewhere.html").as_uri())
        page.wait_for_state("closed, 1006")
        program.wait_for("Pages from '(null|file://)' may not connect")


@uses(TUTORIAL, "server.py", "server.py: origins")
def test_the_list_of_origins(folder: Folder) -> None:
    own, other = folder.port, folder.other_port
    with serving(folder, "server.py"):
        for origin in (None, f"http://127.0.0.1:{own}", f"http://localhost:{other}"):
            with client(folder, origin=origin) as peer:
                peer.send("Hello")
                assert peer.recv(timeout=PATIENCE) == "Hello"
        for origin in ("http://other.example", "null"):
            with pytest.raises(InvalidStatus, match="403"):
                client(folder, origin=origin)


# -- running a server ----------------------------------------------------------------------------

DEPLOY = "docs/deploy.md"


def check_echo(folder: Folder, path: str = "/echo", **arguments: Any) -> None:
    with client(folder, path, **arguments) as peer:
        peer.send("Hello")
        assert peer.recv(timeout=PATIENCE) == "Hello"


@contextmanager
def tls_client(folder: Folder, authority: trustme.CA, **options: Any) -> Iterator[ClientConnection]:
    context = trusting(authority)
    name = options.pop("name", "localhost")
    if "certificate" in options:
        options.pop("certificate").configure_cert(context)
    with (
        socket.create_connection(("127.0.0.1", folder.port), PATIENCE) as sock,
        connect(
            f"wss://{name}/echo", sock=sock, ssl=context, close_timeout=PATIENCE, proxy=None
        ) as peer,
    ):
        yield peer


def serial_number(peer: ClientConnection) -> str:
    assert isinstance(peer.socket, ssl.SSLSocket)
    certificate = peer.socket.getpeercert()
    assert certificate is not None
    return str(certificate["serialNumber"])


def write_certificate(
    authority: trustme.CA, folder: Folder, name: str = "localhost", *, chain: str, key: str
) -> None:
    certificate = authority.issue_cert(name)
    certificate.private_key_pem.write_to_path(str(folder.path / key))
    certificate.cert_chain_pems[0].write_to_path(str(folder.path / chain))


@uses(DEPLOY, "tls.py")
def test_a_new_certificate_at_sighup(folder: Folder) -> None:
    authority = trustme.CA()
    files = {"chain": "certificate.pem", "key": "key.pem"}
    write_certificate(authority, folder, **files)
    with serving(folder, "tls.py") as program, tls_client(folder, authority) as first:
        old = serial_number(first)
        folder.path.joinpath("certificate.pem").write_text("nonsense")
        program._process.send_signal(signal.SIGHUP)
        program.wait_for("The old certificate stays: ")
        with tls_client(folder, authority) as peer:
            assert serial_number(peer) == old
        write_certificate(authority, folder, **files)
        program._process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + PATIENCE
        new = old
        while new == old:
            assert time.monotonic() < deadline
            with tls_client(folder, authority) as peer:
                new = serial_number(peer)
                peer.send("Hello")
                assert peer.recv(timeout=PATIENCE) == "Hello"
        first.send("still there")
        assert first.recv(timeout=PATIENCE) == "still there"


@uses(DEPLOY, "tls.py", "tls.py: several names")
def test_several_names(folder: Folder) -> None:
    authority = trustme.CA()
    write_certificate(authority, folder, chain="certificate.pem", key="key.pem")
    for name in ("a.example.com", "b.example.com"):
        write_certificate(authority, folder, name, chain=f"{name}.pem", key=f"{name}.key")
    with serving(folder, "tls.py"):
        for name in ("localhost", "a.example.com", "b.example.com"):
            with tls_client(folder, authority, name=name) as peer:  # which checks the name
                peer.send("Hello")
                assert peer.recv(timeout=PATIENCE) == "Hello"
        with (
            pytest.raises(ssl.SSLCertVerificationError),
            tls_client(folder, authority, name="c.example.com"),
        ):
            pass


@uses(DEPLOY, "tls.py", "tls.py: client certificates")
def test_client_certificates(folder: Folder) -> None:
    authority, clients = trustme.CA(), trustme.CA()
    write_certificate(authority, folder, chain="certificate.pem", key="key.pem")
    clients.cert_pem.write_to_path(str(folder.path / "clients.pem"))
    with serving(folder, "tls.py"):
        known = clients.issue_cert("somebody@example.com")
        with tls_client(folder, authority, certificate=known) as peer:
            peer.send("Hello")
            assert peer.recv(timeout=PATIENCE) == "Hello"
        stranger = trustme.CA().issue_cert("somebody@example.com")
        for arguments in ({}, {"certificate": stranger}):
            with (
                pytest.raises((OSError, EOFError, WebSocketException)),
                tls_client(folder, authority, **arguments),
            ):
                pass


@uses(DEPLOY, "local.py")
def test_a_unix_socket(folder: Folder) -> None:
    path = folder.path / "plainsocket.sock"
    with running(sys.executable, "-u", "local.py", cwd=folder.path) as program:

        def listens() -> bool:
            with socket.socket(socket.AF_UNIX) as probe:
                return probe.connect_ex(str(path)) == 0

        wait_until(listens)
        assert path.stat().st_mode & 0o777 == 0o660
        with unix_connect(str(path), "ws://localhost/echo", proxy=None) as peer:
            peer.send("Hello")
            assert peer.recv(timeout=PATIENCE) == "Hello"
        assert program.interrupt() == 0, program.output


@uses(DEPLOY, "activated.py", "plainsocket.socket", "plainsocket.service")
def test_a_socket_of_systemds(folder: Folder) -> None:
    activate = needs.program("systemd-socket-activate", "systemd")
    command = [activate, f"--listen=127.0.0.1:{folder.port}", sys.executable, "-u", "activated.py"]
    with running(*command, cwd=folder.path) as program:
        wait_for_port(program, folder.port)
        check_echo(folder)
        assert program.interrupt() == 0, program.output
        assert "Traceback" not in program.output


@uses(DEPLOY, "activated.py", "plainsocket.socket", "plainsocket.service")
def test_systemds_units(folder: Folder) -> None:
    verify = needs.program("systemd-analyze", "systemd")
    for name in ("plainsocket.socket", "plainsocket.service"):
        text = folder.texts[name].replace("/srv/chat/venv/bin/python", sys.executable)
        folder.path.joinpath(name).write_text(text.replace("/srv/chat", str(folder.path)))
    result = subprocess.run(
        [verify, "verify", "--man=no", "./plainsocket.service", "./plainsocket.socket"],
        cwd=folder.path,
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in result.stderr.splitlines() if "plainsocket" in line]
    assert (result.returncode, ours) == (0, []), result.stderr


def listeners(port: int) -> list[str]:
    """What listens on a port, by the kernel's tables."""
    tables = "".join(Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6"))
    return re.findall(rf":{port:04X} [0:]+ 0A ", tables)


@uses(DEPLOY, "one_of_many.py")
def test_several_processes(folder: Folder) -> None:
    with serving(folder, "one_of_many.py"):
        check_echo(folder)
        with running(sys.executable, "-u", "one_of_many.py", cwd=folder.path) as other:
            wait_until(lambda: len(listeners(folder.port)) == 2)
            for _ in range(10):
                check_echo(folder)
            assert other.interrupt() == 0, other.output


@uses(DEPLOY, "one_of_many_pages.py")
def test_several_processes_and_a_page_by_http(folder: Folder) -> None:
    with (
        serving(folder, "one_of_many_pages.py"),
        running(sys.executable, "-u", "one_of_many_pages.py", cwd=folder.path) as other,
    ):
        wait_until(lambda: len(listeners(folder.port)) == 2)
        check_pages(folder.port)
        assert other.interrupt() == 0, other.output


@uses(DEPLOY, "machine.py")
def test_two_machines(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder.path / "machine.py"
    text = file.read_text().replace("7087", str(free_port()))
    text = text.replace("10.0.0.1", "127.0.0.1").replace("10.0.0.2", "127.0.0.2")
    file.write_text(text.replace('host="127.0.0.1", ', ""))  # both on one address, here
    monkeypatch.setenv("NODES_SECRET", "of these two, for as long as the test lasts")
    monkeypatch.setenv("MACHINE", "one")
    with serving(folder, "machine.py"):
        monkeypatch.setenv("MACHINE", "two")
        with running(sys.executable, "-u", "machine.py", cwd=folder.path) as other:
            wait_until(lambda: len(listeners(folder.port)) == 2)
            check_pages(folder.port)
            assert other.interrupt() == 0, other.output


def check_pages(port: int) -> None:
    """Each request of a page may come to another process."""
    for _ in range(4):
        with HTTPPage(port) as one:
            ws = one.socket()
            for number in range(5):
                ws.send(f"{number}")
                assert ws.receive() == f"{number}"
            ws.close()
            assert ws.closed.wait(PATIENCE)


PROXIES = {
    "nginx.conf": text_of(DEPLOY, "nginx.conf"),
    "haproxy.cfg": text_of(DEPLOY, "haproxy.cfg"),
    "haproxy.cfg, PROXY protocol": text_of(DEPLOY, "haproxy.cfg, PROXY protocol"),
    "Caddyfile": text_of(DEPLOY, "Caddyfile"),
    "httpd.conf": text_of(DEPLOY, "httpd.conf"),
}


@pytest.mark.parametrize("name", PROXIES)
def test_the_proxies_are_set_up_as_in_the_examples(name: str) -> None:
    file = ROOT / "examples/deploy" / name.partition(",")[0]
    assert PROXIES[name] in file.read_text()  # which test_proxies.py runs


@uses(DEPLOY, "launch.py", "server.py")
def test_the_launcher(folder: Folder) -> None:
    """The rest is in test_handover.py."""
    with running(sys.executable, "-u", "launch.py", cwd=folder.path) as program:
        wait_for_port(program, folder.port)
        check_echo(folder)
        program._process.send_signal(signal.SIGTERM)
        assert program.wait() == 0, program.output
        assert "Traceback" not in program.output


@uses(DEPLOY, "logged.py")
def test_the_log(folder: Folder) -> None:
    with serving(folder, "logged.py") as program:
        check_echo(folder)
        program.wait_for(
            r"^\d{4}-.* INFO plainsocket: 127\.0\.0\.1:\d+: '/echo' after .* with 1000 ''"
        )
        with pytest.raises(InvalidStatus, match="403"):
            client(folder, "/echo", origin="http://evil.example")
        program.wait_for(r"^\d{4}-.* WARNING plainsocket: .*'http://evil\.example'")


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as answer:
        return str(answer.read().decode())


@uses(DEPLOY, "counted.py")
def test_the_numbers(folder: Folder) -> None:
    with serving(folder, "counted.py"):
        check_echo(folder)
        text = scrape(folder.port)
    assert "\nplainsocket_messages_received_total 1.0\n" in text
    rows = re.findall(r"^\| `(plainsocket_\w+)` \|", (ROOT / DEPLOY).read_text(), re.MULTILINE)
    names = re.findall(r"^# TYPE (plainsocket_\w+) ", text, re.MULTILINE)
    assert sorted(rows) == sorted(name for name in names if not name.endswith("_created"))


@uses(DEPLOY, "counted.py", "counted.py: a port of its own")
def test_the_numbers_on_a_port_of_their_own(folder: Folder) -> None:
    with serving(folder, "counted.py"):
        check_echo(folder)
        assert "\nplainsocket_messages_received_total 1.0\n" in scrape(folder.other_port)
        with pytest.raises(HTTPError, match="404"):
            scrape(folder.port)


# -- security ------------------------------------------------------------------------------------


@uses("docs/compression.md", "compressed.py")
def test_compression(folder: Folder) -> None:
    agreed = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    with serving(folder, "compressed.py") as program:
        check_echo(folder)
        program.wait_for(re.escape(f"('{agreed}',)"))


@uses("docs/streaming.md", "files.py")
def test_streaming(folder: Folder) -> None:
    with serving(folder, "files.py"):
        with client(folder, "/upload") as peer:
            peer.send([b"x" * 100_000] * 100)
            assert peer.recv(timeout=PATIENCE) == "10000000 bytes"
        with client(folder, "/download") as peer:
            size = sum(len(piece) for piece in peer.recv_streaming())
        assert size == sum(len(f"line {number}\n") for number in range(50_000))


@uses("docs/broadcast.md", "ticker.py")
def test_broadcast(folder: Folder) -> None:
    with (
        serving(folder, "ticker.py"),
        client(folder, "/ticker") as one,
        client(folder, "/ticker") as other,
    ):
        for peer in (one, other):
            first = str(peer.recv(timeout=PATIENCE))
            number = int(first.removeprefix("tick "))
            assert peer.recv(timeout=PATIENCE) == f"tick {number + 1}"


SECURITY = "docs/security.md"
ATTACK = text_of(SECURITY, "attack")


@uses(SECURITY, "origins.py")
def test_a_list_of_origins_stops_dns_rebinding(folder: Folder) -> None:
    with serving(folder, "origins.py"):
        check_echo(folder)
        check_echo(folder, origin="https://bank.example")
        for origin in ("https://evil.example", "http://bank.example", "null"):
            with pytest.raises(InvalidStatus, match="403"):
                client(folder, "/echo", origin=origin)
        with (
            socket.create_connection(("127.0.0.1", folder.port), PATIENCE) as sock,
            pytest.raises(InvalidStatus, match="403"),
        ):
            connect("ws://evil.example/echo", sock=sock, origin=Origin("http://evil.example"))


@pytest.mark.browser
@uses(SECURITY, "origins.py")
def test_the_attack(folder: Folder, page: Page) -> None:
    """A page from elsewhere, against the default rule and, as a control, without any."""
    program = folder.path / "origins.py"
    text = program.read_text()
    assert 'origins=["https://bank.example"]' in text
    script = ATTACK.replace("wss://bank.example/account", f"ws://127.0.0.1:{folder.port}/echo")
    script += "ws.onmessage = (event) => { document.title = event.data; };\n"
    script += 'ws.onclose = (event) => { document.title = "closed " + event.code; };\n'
    folder.path.joinpath("evil.html").write_text(
        f'<!doctype html>\n<meta charset="utf-8">\n<title>evil</title>\n<script>{script}</script>'
    )
    for origins, title in (("None", "closed 1006"), ('"*"', '{"pay": 1000, "to": "mallory"}')):
        program.write_text(text.replace('["https://bank.example"]', origins))
        with serving(folder, "origins.py"), http_server(folder):
            page.open(f"http://localhost:{folder.other_port}/evil.html")
            page.wait_for_title(title)
    page.browser.console_errors()


@uses(SECURITY, "login.py")
def test_login_by_a_cookie(folder: Folder) -> None:
    with serving(folder, "login.py"):
        (session,) = re.findall(r'sessions = \{"(\w+)"', (folder.path / "login.py").read_text())
        with client(folder, headers={"Cookie": f"other=1; session={session}"}) as peer:
            peer.send("Hello")
            assert peer.recv(timeout=PATIENCE) == "alice: Hello"
        for cookie in ("session=wrong", "session=", "other=1"):
            with pytest.raises(InvalidStatus, match="401"):
                client(folder, headers={"Cookie": cookie})


@uses(SECURITY, "ticket.py")
def test_login_by_a_ticket(folder: Folder) -> None:
    def fetch() -> str:
        url = f"http://127.0.0.1:{folder.port}/"
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return str(answer.read().decode())

    with serving(folder, "ticket.py"):
        for _ in range(20):  # whatever characters it has
            offer = ["chat", f"ticket.{fetch()}"]
            with client(folder, subprotocols=offer) as peer:
                assert peer.subprotocol == "chat"
                peer.send("Hello")
                assert peer.recv(timeout=PATIENCE) == "alice: Hello"
        for bad in (offer, ["chat"], ["chat", "ticket."], ["chat", "ticket.wrong"]):
            with pytest.raises(InvalidStatus, match="401"):  # the first has been used
                client(folder, subprotocols=bad)
        fetch()


@uses(SECURITY, "orders.py")
def test_messages_that_are_checked(folder: Folder) -> None:
    bad: list[str | bytes] = ["", "x", "[]", "1", "{}", "null", b"\xff", "[" * 999, "9" * 999]
    for item, count in (("beer", 1), ("tea", 0), ("tea", 101), ("tea", 1.5), ("tea", True)):
        bad.append(json.dumps({"item": item, "count": count}))
    bad.append('{"item": [], "count": 1}')
    with serving(folder, "orders.py"):
        with client(folder) as peer:
            peer.send('{"item": "tea", "count": 2}')
            assert peer.recv(timeout=PATIENCE) == '{"ordered": 2, "item": "tea"}'
        for message in bad:
            with client(folder) as peer:
                peer.send(message)
                assert close_of(peer) == (4000, "not an order"), message
        with client(folder) as peer:
            peer.send("x" * 1001)
            assert close_of(peer)[0] == 1009


# -- frameworks ----------------------------------------------------------------------------------

FRAMEWORKS = "docs/frameworks.md"


def check_room(folder: Folder, name: str) -> None:
    with serving(folder, f"{name}_app.py"):
        with pytest.raises(InvalidStatus, match="401"):
            client(folder, "/rooms/attic")
        url = f"http://127.0.0.1:{folder.port}/login/ann"
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            assert answer.read() == b"Hello ann"
            cookie = answer.headers["Set-Cookie"].partition(";")[0]
        with client(folder, "/rooms/attic", headers={"Cookie": cookie}) as peer:
            for message in ("Hello", "again"):
                peer.send(message)
                assert peer.recv(timeout=PATIENCE) == f"ann in attic: {message}"


@uses(FRAMEWORKS, "flask_app.py")
def test_flask(folder: Folder) -> None:
    check_room(folder, "flask")


@uses(FRAMEWORKS, "django_app.py")
def test_django(folder: Folder) -> None:
    check_room(folder, "django")


@uses(FRAMEWORKS, "bottle_app.py")
def test_bottle(folder: Folder) -> None:
    check_room(folder, "bottle")


@uses(FRAMEWORKS, "falcon_app.py")
def test_falcon(folder: Folder) -> None:
    check_room(folder, "falcon")


@uses(FRAMEWORKS, "pyramid_app.py")
def test_pyramid(folder: Folder) -> None:
    check_room(folder, "pyramid")


@pytest.mark.slow
@uses(FRAMEWORKS, "old_socketio_app.py")
def test_flask_socketio(folder: Folder) -> None:
    check_socketio(folder, "old_socketio_app.py")


@pytest.mark.slow
@uses(FRAMEWORKS, "socketio_app.py")
def test_python_socketio(folder: Folder) -> None:
    check_socketio(folder, "socketio_app.py")


def check_socketio(folder: Folder, name: str) -> None:
    """In Socket.IO's own words; tests/test_socketio.py has its real client."""
    with running(sys.executable, "-u", name, cwd=folder.path) as program:
        wait_for_port(program, folder.port)
        with client(folder, "/socket.io/?EIO=4&transport=websocket") as peer:
            assert str(peer.recv(timeout=PATIENCE)).startswith("0{")
            peer.send("40")
            assert str(peer.recv(timeout=PATIENCE)).startswith("40{")
            peer.send('421["echo","Hello"]')
            assert peer.recv(timeout=PATIENCE) == '431["Hello"]'
        assert "Traceback" not in program.output


@pytest.mark.slow
@uses(FRAMEWORKS, "chat.py")
def test_the_reloader(folder: Folder) -> None:
    """tests/test_run.py changes its file."""
    command = [sys.executable, "-m", *shlex.split(RUN), "--port", str(folder.port)]
    with running(*command, cwd=folder.path) as program:
        wait_for_port(program, folder.port)
        with client(folder, "/echo") as peer:
            peer.send("Hello")
            assert peer.recv(timeout=PATIENCE) == "Hello"


# -- when WebSocket is blocked -------------------------------------------------------------------

BLOCKED = "docs/when-websocket-is-blocked.md"
COMMANDS = "".join(block.text for block in BLOCKS[BLOCKED] if block.language == "sh").splitlines()
CURL = [line for line in COMMANDS if line.startswith("curl ")]


def check_network(page: Page, *lines: str) -> None:
    """Open the page that checks; `lines` is the end of what it says, without the times."""

    def said() -> list[str]:
        return sorted(re.sub(r" \(.*", "", line) for line in page.text("#lines").splitlines())

    page.folder.path.joinpath("check.html").write_text(
        page.folder.path.joinpath("check.html").read_text().replace("SILENCE = 60", "SILENCE = 1")
    )
    page.open()
    page.wait_until(lambda: said() == sorted(lines))


HTTP_WORKS = ("http: opened", *["http: answered, by http"] * 2, "http: works")


@pytest.mark.browser
@uses(BLOCKED, "check.py", "check.html")
def test_a_network_that_blocks_nothing(page: Page) -> None:
    native = ("native: opened", *["native: answered, by native"] * 2, "native: works")
    with serving(page.folder, "check.py"):
        check_network(page, *native, *HTTP_WORKS)


@pytest.mark.browser
@uses(BLOCKED, "check.py", "check.html")
def test_a_network_that_blocks(folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> None:
    with (
        serving(folder, "check.py"),
        squid(tmp_path_factory.mktemp("squid")) as proxy,
        chromium_behind(proxy) as browser,
    ):
        check_network(Page(browser, folder), "native: closed with 1006", *HTTP_WORKS)


@pytest.mark.slow
@pytest.mark.once
@uses(BLOCKED, "check.py", "check.html")
def test_commands_that_look_at_a_network(folder: Folder) -> None:
    (connect,) = (line for line in COMMANDS if " | plainsocket " in line)
    (curl,) = CURL
    needs.program("curl", "curl")

    def run(line: str, status: int) -> str:
        program = f"{shlex.quote(sys.executable)} -m plainsocket"
        done = subprocess.run(
            ["sh", "-c", folder.with_ports(line).replace("plainsocket", program, 1)],
            env={name: each for name, each in os.environ.items() if not name.endswith("_proxy")},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == status, done
        return done.stdout

    with serving(folder, "check.py"):
        assert run(connect, 0) == "Hello\n"
        curl = curl.replace("--max-time 5", "--max-time 1")
        too_late = 28  # curl's exit code, as the connection stays open
        assert run(curl, too_late).startswith("HTTP/1.1 101 Switching Protocols\n")
        assert " 400 " in run(re.sub(r"-H 'Sec-WebSocket-Key: [^']*'", "", curl), 0)
        assert " 200 " in run(curl.replace("-H 'Upgrade: websocket'", ""), 0)
    run(connect, 1)


# -- the client ----------------------------------------------------------------------------------

CLIENT = "docs/client.md"


def run_client(folder: Folder, name: str) -> str:
    done = subprocess.run(
        [sys.executable, name],
        cwd=folder.path,
        env={name: each for name, each in os.environ.items() if not name.endswith("_proxy")},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@uses(CLIENT, "server.py", "hello.py", "many.py", "refused.py")
def test_clients(folder: Folder) -> None:
    with serving(folder, "server.py"):
        assert run_client(folder, "hello.py") == "Hello\n"
        assert run_client(folder, "many.py") == "100\n"
        assert run_client(folder, "refused.py").startswith("404 ")
    assert "can't connect to 127.0.0.1" in run_client(folder, "refused.py")


@pytest.mark.slow
@uses(CLIENT, "server.py", "feed.py")
def test_a_client_that_comes_back(folder: Folder) -> None:
    with running(sys.executable, "feed.py", cwd=folder.path) as program:
        for count in (1, 2):
            with serving(folder, "server.py"):
                program.wait_for(r"\A" + r"Hello\s+" * count)
