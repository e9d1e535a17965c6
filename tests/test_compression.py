"""Compression (permessage-deflate) over real sockets: agreed on, used, and released when idle."""

from __future__ import annotations

import os
import zlib
from typing import Any

import gevent
import pytest
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.sync.client import connect

import plainsocket
from browsers import Browser
from plainsocket.frames import Opcode
from plainsocket.protocol import Message
from rawclient import RawClient
from serving import PATIENCE, serving, wait_until

OFFER = "permessage-deflate; client_max_window_bits"  # of every browser
ALONE = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
MESSAGES: list[Message] = [
    "",
    "a",
    "é" * 300,
    "long " * 50_000,
    b"",
    os.urandom(70_000),
    bytes(10**6),
]


def extensions(head: str) -> str | None:
    for line in head.split("\r\n"):
        name, _, value = line.partition(": ")
        if name == "Sec-WebSocket-Extensions":
            return value
    return None


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        ({}, None),
        ({"compression": True}, ALONE),
        (
            {"compression": True, "compression_context": True},
            "permessage-deflate; client_max_window_bits=12",
        ),
    ],
)
def test_what_is_agreed_on_and_told(options: dict[str, Any], answer: str | None) -> None:
    seen: list[Any] = []

    def handler(ws: plainsocket.WebSocket) -> None:
        seen.append(ws.extensions)

    with serving(handler, **options) as server, RawClient(server.port) as client:
        assert extensions(client.open("/", sec_websocket_extensions=OFFER)) == answer
        client.receive_close()
    assert seen == [() if answer is None else (answer,)]


def test_offers_in_several_headers_are_one_list() -> None:
    with serving(compression=True) as server, RawClient(server.port) as client:
        bad = "permessage-deflate; unknown\r\nSec-WebSocket-Extensions: " + OFFER
        assert extensions(client.open(sec_websocket_extensions=bad)) == ALONE


def test_a_malformed_header_is_refused() -> None:
    with serving(compression=True) as server, RawClient(server.port) as client:
        client.send(client.request(sec_websocket_extensions="permessage-deflate; ="))
        assert client.receive_head().startswith("HTTP/1.1 400 ")
        assert b"Sec-WebSocket-Extensions is malformed" in client.receive_rest()


def test_process_request_may_decline() -> None:
    def decline(request: plainsocket.Request) -> None:
        assert request.compression is not None
        if request.path == "/secrets":
            request.compression = None

    with serving(
        lambda ws: ws.send("text " * 1000), compression=True, process_request=decline
    ) as server:
        for path, answer in (("/", ALONE), ("/secrets", None)):
            with RawClient(server.port) as client:
                assert extensions(client.open(path, sec_websocket_extensions=OFFER)) == answer
                head, _ = client.receive_frame()
                assert (head.rsv == 0x40) == (answer is not None)


@pytest.mark.parametrize("context", [False, True])
@pytest.mark.parametrize("bits", [9, 15])
def test_messages_come_back_as_they_were(bits: int, context: bool) -> None:
    factory = ClientPerMessageDeflateFactory(
        server_max_window_bits=bits, client_max_window_bits=bits
    )
    with (
        serving(compression=True, compression_context=context) as server,
        connect(server.url(), extensions=[factory], compression=None, max_size=None) as peer,
    ):
        for message in MESSAGES * 2:
            peer.send(message)
            assert peer.recv(timeout=PATIENCE) == message
        peer.send(["in ", "frag", "ments"])
        assert peer.recv(timeout=PATIENCE) == "in fragments"


def test_an_endpoint_speaks_it_too() -> None:
    class Echo(plainsocket.Endpoint):
        def on_message(self, message: Message) -> None:
            self.ws.send(message)

    with serving(Echo, compression=True) as server, connect(server.url("/")) as peer:
        for message in MESSAGES:
            peer.send(message)
            assert peer.recv(timeout=PATIENCE) == message


def test_a_bomb_is_answered_with_1009() -> None:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = compressor.compress(bytes(1 << 27)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    with serving(compression=True) as server, RawClient(server.port) as client:
        client.open(sec_websocket_extensions=OFFER)
        client.send_frame(Opcode.BINARY, bomb[:-4], rsv=0x40)
        assert client.receive_close() == (1009, "message over 1048576 bytes")


@pytest.mark.slow
def test_an_idle_connections_compressor_is_dropped() -> None:
    opened: list[plainsocket.WebSocket] = []

    def handler(ws: plainsocket.WebSocket) -> None:
        opened.append(ws)
        for message in ws:
            ws.send(message)

    with (
        serving(
            handler,
            compression=True,
            compression_context=True,
            compression_idle=0.2,
            ping_interval=None,
        ) as server,
        connect(server.url("/")) as peer,
    ):
        for number in range(2):
            peer.send(f"{number} and more " * 100)
            assert peer.recv(timeout=PATIENCE) == f"{number} and more " * 100
            wait_until(lambda: opened[0]._protocol._deflater._compressor is None)  # type: ignore[union-attr]


def test_connections_of_a_thread_share_one_compressor() -> None:
    def handler(ws: plainsocket.WebSocket) -> None:
        for message in ws:
            ws.send(message)

    def compressors() -> int:
        return len(gevent.get_hub().__dict__["plainsocket_compressors"]._compressors)

    with serving(handler, compression=True) as server:
        for _ in range(3):
            with connect(server.url("/")) as peer:
                peer.send("more " * 100)
                assert peer.recv(timeout=PATIENCE) == "more " * 100
        assert server.call(compressors) == 1


PAGE = """<!doctype html><meta charset="utf-8"><title>echo</title><script>
const ws = new WebSocket(location.href.replace("http", "ws") + "echo");
ws.binaryType = "arraybuffer";
const waiting = [];
ws.onmessage = (event) => waiting.shift()(event.data);
const open = new Promise((resolve, reject) => { ws.onopen = resolve; ws.onclose = reject; });
function answer(message) {
  return new Promise((resolve) => { waiting.push(resolve); ws.send(message); });
}
async function check() {
  await open;
  const random = new Uint8Array(50000);
  crypto.getRandomValues(random);
  const rows = JSON.stringify(Array.from({length: 3000}, (_, n) => ({n, name: "row " + n % 7})));
  const texts = ["", "a", "\\u00e9\\u{1d11e}".repeat(1000), rows, "x".repeat(900000)];
  const binaries = [new Uint8Array(0), new Uint8Array(300000), random];
  for (let turn = 0; turn < 3; turn++) {
    for (const text of texts)
      if (await answer(text) !== text) return "wrong text of " + text.length;
    for (const binary of binaries) {
      const back = new Uint8Array(await answer(binary));
      if (back.length !== binary.length || back.some((byte, i) => byte !== binary[i]))
        return "wrong bytes of " + binary.length;
    }
  }
  ws.close();
  return ws.extensions;
}
</script>"""


def page(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/html")])
    return [PAGE.encode()]


@pytest.mark.browser
@pytest.mark.parametrize("context", [False, True])
def test_compressed_echo_with_a_browser(browser: Browser, context: bool) -> None:
    agreed: list[Any] = []
    sizes: list[int] = []

    def handler(ws: plainsocket.WebSocket) -> None:
        agreed.append(ws.extensions)
        for message in ws:
            ws.send(message)
            sizes.append(len(message))
        agreed.append((ws.bytes_received, ws.bytes_sent))

    with serving(
        {"/echo": handler}, app=page, compression=True, compression_context=context
    ) as server:
        browser.driver.get(f"http://127.0.0.1:{server.port}/")
        result = browser.driver.execute_async_script(
            "check().then(arguments[0], (error) => arguments[0]('failed: ' + error));"
        )
        wait_until(lambda: len(agreed) == 2)
    is_firefox = browser.engine == "firefox"  # its offer has no parameters, and it tells of none
    with_context = "permessage-deflate" + ("" if is_firefox else "; client_max_window_bits=12")
    assert agreed[0] == (with_context if context else ALONE,)
    assert result == ("permessage-deflate" if is_firefox else agreed[0][0])
    received, sent = agreed[1]
    assert len(sizes) == 24
    # The random bytes apart, next to nothing is left, in both directions.
    assert received < sum(sizes) / 8
    assert sent < sum(sizes) / 8
