"""What holds for whatever bytes a peer sends. Each function takes any bytes and raises
AssertionError where it does not hold; everything else that it raises is a bug as well.

The fuzzers in fuzz/ look for such bytes; test_fuzz_corpus.py replays those that are kept.
"""

from __future__ import annotations

import itertools
import random
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final, Literal, cast
from urllib.parse import unquote_to_bytes

from plainsocket.carriers import posts
from plainsocket.carriers.records import UP, Kind, RecordError, RecordReader
from plainsocket.deflate import Deflater, Inflater
from plainsocket.forwarded import Client, ProxyError, ProxyHeader, TrustedProxies, read_proxy_header
from plainsocket.frames import CloseCode, Opcode, apply_mask, is_valid_close_code, read_header
from plainsocket.handshake import Accepted, Refused, Request, accept, printable
from plainsocket.head import Head, HeadError, find_end, parse_head
from plainsocket.options import Options
from plainsocket.protocol import HOLD_SIZE, Message, Protocol, Role, State


def _chopped(data: bytes, seed: int) -> list[bytes]:
    """Cut into pieces; 0 does not, 1 makes single bytes."""
    if seed == 0:
        return [data]
    if seed == 1:
        return [data[i : i + 1] for i in range(len(data))]
    choose = random.Random(seed)
    pieces = []
    position = 0
    while position < len(data):
        size = choose.choice((1, 2, 3, 7, 20, 130, 1000))
        pieces.append(data[position : position + size])
        position += size
    return pieces


# -- the protocol --------------------------------------------------------------------------------


@dataclass
class _Conversation:
    """What came of some bytes."""

    messages: list[Message]
    pongs: list[bytes]  # payloads of pings that were answered by this end
    answered: list[bytes]  # payloads of pings that were answered by the peer
    state: State
    code: int | None
    reason: str
    failed: bool
    close_sent_first: bool
    close_frame: bytes | None  # its payload


_ERRORS: Final = frozenset(
    {
        CloseCode.PROTOCOL_ERROR,
        CloseCode.INVALID_DATA,
        CloseCode.POLICY_VIOLATION,
        CloseCode.MESSAGE_TOO_BIG,
    }
)


def protocol(data: bytes) -> None:
    """The first byte says who talks to whom, the second how the rest, what a peer sends, is cut."""
    if len(data) < 2:
        return
    flags, seed, wire = data[0], data[1], data[2:]
    whole = _converse(flags, _chopped(wire, 0))
    _check_end(whole)
    model = _Model(flags)
    model.read(wire)
    assert (model.messages, model.code) == (whole.messages, whole.code)
    for chosen in {1, seed} - {0}:
        chopped = _converse(flags, _chopped(wire, chosen))
        _check_end(chopped)
        assert chopped.messages == whole.messages
        assert chopped.answered == whole.answered
        assert chopped.state == whole.state
        assert (chopped.code, chopped.reason) == (whole.code, whole.reason)
        assert chopped.failed == whole.failed
        assert chopped.close_frame == whole.close_frame
        if whole.state is State.CLOSED:
            # Behind a close frame of ours no pong goes out, not for what came with the end either.
            shorter, longer = sorted((whole.pongs, chopped.pongs), key=len)
            assert longer[: len(shorter)] == shorter
        else:
            assert chopped.pongs == whole.pongs
        if chosen == 1 and not whole.close_sent_first:
            assert chopped.pongs == model.pings
    for message in whole.messages:
        _check_round_trip(message, "server" if flags & 1 else "client")


def _converse(flags: int, pieces: list[bytes]) -> _Conversation:
    role: Role = "client" if flags & 1 else "server"
    end = Protocol(role, max_message_size=100, max_fragments=4) if flags & 2 else Protocol(role)
    if flags & 4:
        for payload in (b"", b"one", b"two"):
            end.ping(payload)
    close_frame = None
    if flags & 8:
        end.close(1000, "enough")
        close_frame = end.take_close()
        assert close_frame is not None
    messages: list[Message] = []
    pongs: list[bytes] = []
    answered: list[bytes] = []
    for piece in [*pieces, b""]:
        was_closed = end.state is State.CLOSED
        received = end.receive(piece)
        assert not (was_closed and received)
        messages += received
        pongs += [_payload(pong, Opcode.PONG, role) for pong in end.take_pongs()]
        answered += end.pongs
        end.pongs.clear()
        assert isinstance(end.message_begun, bool)
        if end.end_is_due:
            assert end.receive(b"") == []
            assert end.state is State.CLOSED
        frame = end.take_close()
        assert frame is None or close_frame is None  # at most one is ever sent
        close_frame = close_frame or frame
    conversation = _Conversation(
        messages,
        pongs,
        answered,
        end.state,
        end.close_code,
        end.close_reason,
        end.failed,
        bool(flags & 8),
        None if close_frame is None else _payload(close_frame, Opcode.CLOSE, role),
    )
    end.receive_eof()
    assert end.state is State.CLOSED
    if conversation.state is State.CLOSED:
        assert (end.close_code, end.close_reason) == (conversation.code, conversation.reason)
    else:
        assert end.close_code == CloseCode.ABNORMAL_CLOSURE
    assert end.take_close() is None
    assert end.take_pongs() == []
    assert end.receive(b"\x81\x00") == []
    return conversation


def _payload(frame: bytes, opcode: Opcode, role: Role) -> bytes:
    """Check a control frame that was built, and return its payload."""
    head = read_header(frame)
    assert head is not None
    assert (head.opcode, head.fin, head.rsv) == (opcode, True, 0)
    assert bool(head.key) == (role == "client")
    assert len(frame) == head.size + head.length
    payload = frame[head.size :]
    return apply_mask(payload, head.key) if head.key else payload


def _check_end(conversation: _Conversation) -> None:
    code, sent = conversation.code, conversation.close_frame
    if conversation.state is not State.CLOSED:
        assert code is None
        assert not conversation.failed
        return
    assert code is not None
    assert sent is not None
    if conversation.failed:
        assert code in _ERRORS
    else:
        assert is_valid_close_code(code) or code == CloseCode.NO_STATUS_RECEIVED
    if conversation.close_sent_first:
        assert sent == b"\x03\xe8enough"
    elif code == CloseCode.NO_STATUS_RECEIVED:
        assert sent == b""
    else:
        assert sent[:2] == code.to_bytes(2, "big")
        sent[2:].decode()


def _check_round_trip(message: Message, receiver: Role) -> None:
    """What one end takes, it can send, and the other end takes."""
    sender: Role = "client" if receiver == "server" else "server"
    frames = Protocol(sender).send(message)
    assert Protocol(receiver).receive(b"".join(b"".join(frame) for frame in frames)) == [message]


class _Model:
    """RFC 6455 once more, as simple as can be and for all the bytes at once."""

    def __init__(self, flags: int, inflates: _NaiveInflate | None = None) -> None:
        self.is_masked = not flags & 1
        self.inflates = inflates
        self.max_size, self.max_fragments = (100, 4) if flags & 2 else (1 << 20, 1 << 16)
        self.messages: list[Message] = []
        self.pings: list[bytes] = []
        self.code: int | None = None

    def read(self, wire: bytes) -> None:
        kind, message, size, fragments, compressed = 0, b"", 0, 0, False
        while self.code is None and len(wire) >= 2:
            opcode, fin, length = wire[0] & 15, wire[0] >> 7, wire[1] & 127
            is_control = opcode >= 8
            if opcode not in (0, 1, 2, 8, 9, 10) or (is_control and (not fin or length > 125)):
                return self.end(1002)
            extra = {126: 2, 127: 8}.get(length, 0)
            start = 2 + extra + (4 if wire[1] & 128 else 0)
            if extra and len(wire) >= 2 + extra:
                length = int.from_bytes(wire[2 : 2 + extra], "big")
                if length < 126 or (extra == 8 and not 1 << 16 <= length < 1 << 63):
                    return self.end(1002)
            if len(wire) < start:
                return None
            may_have_rsv1 = self.inflates is not None and opcode in (1, 2)
            if wire[0] & (0x30 if may_have_rsv1 else 0x70):
                return self.end(1002)
            if bool(wire[1] & 128) != self.is_masked:
                return self.end(1002)
            rsv1 = bool(wire[0] & 0x40)
            key, payload = wire[2 + extra : start], wire[start : start + length]
            is_whole = len(payload) == length
            wire = wire[start + length :]
            if key:
                payload = bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))
            if is_control:
                if is_whole:
                    self.control(opcode, payload)
                continue
            if (kind == 0) == (opcode == 0):
                return self.end(1002)
            if opcode:
                kind, message, size, fragments, compressed = opcode, b"", 0, 0, rsv1
            size += length
            fragments += 1
            if size > (2 * self.max_size + 1024 if compressed else self.max_size):
                return self.end(1009)
            if fragments > self.max_fragments:
                return self.end(1008)
            message += payload
            is_last = bool(fin and is_whole)
            content = message
            if compressed and self.inflates is not None:
                try:
                    content = self.inflates.inflate(message, is_last=is_last)
                except zlib.error:
                    return self.end(1007)
                if len(content) > self.max_size:
                    return self.end(1009)
            if kind == 1 and not _is_text(content, is_whole=is_last):
                return self.end(1007)
            if is_last:
                self.messages.append(content.decode() if kind == 1 else content)
                kind = 0
        return None

    def control(self, opcode: int, payload: bytes) -> None:
        if opcode == 9:
            self.pings.append(payload)
        elif opcode == 8 and payload:
            code = int.from_bytes(payload[:2], "big")
            may_be_sent = code in {*range(1000, 1015), *range(3000, 5000)} - {1004, 1005, 1006}
            if len(payload) == 1 or not may_be_sent:
                self.end(1002)
            else:
                self.end(code if _is_text(payload[2:], is_whole=True) else 1007)
        elif opcode == 8:
            self.end(1005)

    def end(self, code: int) -> None:
        self.code = code


def _is_text(data: bytes, *, is_whole: bool) -> bool:
    """Whether it is UTF-8, or can become that by what is still to come."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        rest = data[error.start :]
        return not is_whole and len(rest) < 4 and any(map(_is_character, _completions(rest)))
    return True


def _completions(rest: bytes) -> Iterator[bytes]:
    for count in range(1, 4):
        for more in itertools.product(b"\x80\x90\xa0\xbf", repeat=count):
            yield rest + bytes(more)


def _is_character(data: bytes) -> bool:
    try:
        return len(data.decode()) == 1
    except UnicodeDecodeError:
        return False


# -- compression ---------------------------------------------------------------------------------

_INFLATE_ERRORS: Final = frozenset({1007, 1009})


class _NaiveInflate:
    """A message so far, inflated from its beginning, byte by byte."""

    def __init__(self, *, keeps_context: bool) -> None:
        self._keeps_context = keeps_context
        self._context = self._new()

    def _new(self) -> Any:
        return zlib.decompressobj(-15)

    def inflate(self, message: bytes, *, is_last: bool) -> bytes:
        inflater, output, ends = self._context.copy(), b"", 0
        for byte in message + (b"\0\0\xff\xff" if is_last else b""):
            if inflater.eof:
                inflater, ends = self._new(), ends + 1
            output += inflater.decompress(bytes([byte]))
            if ends > 256 or (ends == 256 and inflater.eof):
                raise zlib.error
        if is_last:
            afresh = ends or inflater.eof or not self._keeps_context
            self._context = self._new() if afresh else inflater
        return output


def deflate(data: bytes) -> None:
    """As `protocol`, where compression was agreed on; the third byte says how. What is inflated is
    bounded, and the same in pieces (`start_stream`) and as messages."""
    if len(data) < 3:
        return
    flags, how, seed, wire = data[0] & 3, data[1], data[2], data[3:]
    keeps_context = bool(how & 1)
    messages, code = _inflate_all(flags, keeps_context, _chopped(wire, 0))
    model = _Model(flags, _NaiveInflate(keeps_context=keeps_context))
    model.read(wire)
    assert messages == model.messages
    assert code == model.code or {code, model.code} == _INFLATE_ERRORS
    for chosen in {1, seed} - {0}:
        chopped = _inflate_all(flags, keeps_context, _chopped(wire, chosen))
        assert chopped[0] == messages
        assert chopped[1] == code or {chopped[1], code} == _INFLATE_ERRORS
        streamed = _inflate_all(flags, keeps_context, _chopped(wire, chosen), in_pieces=True)
        if code in (1008, 1009):
            assert streamed[0][: len(messages)] == messages  # there are no such limits
        else:
            assert streamed == (messages, code)
    for message in messages:
        sender = _compressing(flags ^ 1, keeps_context)
        for _ in range(2):
            frames = b"".join(b"".join(frame) for frame in sender.send(message))
            assert _inflate_all(flags & 1, False, [frames])[0] == [message]


def _compressing(flags: int, keeps_context: bool) -> Protocol:
    role: Role = "client" if flags & 1 else "server"
    return Protocol(
        role,
        max_message_size=100 if flags & 2 else 1 << 20,
        max_fragments=4 if flags & 2 else 1 << 16,
        deflater=Deflater(15, keeps_context=False, threshold=0),
        inflater=Inflater(15, keeps_context=keeps_context),
    )


def _inflate_all(
    flags: int, keeps_context: bool, pieces: list[bytes], *, in_pieces: bool = False
) -> tuple[list[Message], int | None]:
    end = _compressing(flags, keeps_context)
    limit = 100 if flags & 2 else 1 << 20
    messages: list[Message] = []
    parts: list[Message] = []
    if in_pieces:
        end.start_stream(None)
    for piece in pieces:
        received = end.receive(piece)
        while True:
            most = sum(len(message) for message in received)
            assert most <= max(limit, HOLD_SIZE) + limit
            pieces = cast("list[bytes]", end.take_pieces())
            assert sum(len(part) for part in pieces) <= 2 * HOLD_SIZE
            parts += pieces
            has_ended = end.take_stream_end()
            if has_ended:
                empty: Any = "" if end.stream_kind == Opcode.TEXT else b""
                messages.append(empty.join(parts))
                parts.clear()
                end.start_stream(None)
            messages += received  # which came behind the one in pieces
            if not has_ended and not end.holding:
                break
            received = end.receive(b"")
        if end.end_is_due:
            assert end.receive(b"") == []
    return messages, end.close_code


# -- the handshake -------------------------------------------------------------------------------

_MAX_HEAD: Final = 1000
_MAX_HEADERS: Final = 20
_HEAD_STATUSES: Final = frozenset({400, 413, 414, 431, 501, 505})
_HANDSHAKE_STATUSES: Final = frozenset({400, 403, 405, 426})


def _only_good(origin: str, request: Request) -> bool:
    return origin == "http://good.example" and request.path == "/"


_OPTIONS: Final = (
    Options(),
    Options(origins="*", subprotocols=["chat", "superchat"]),
    Options(origins=["self", "https://*.good.example", "http://localhost:*"]),
    Options(origins=_only_good, subprotocols=["chat"]),
)


def handshake(data: bytes) -> None:
    """The first byte chooses options, the second how the rest, a request, is cut."""
    if len(data) < 2:
        return
    options, seed, wire = _OPTIONS[data[0] % len(_OPTIONS)], data[1], data[2:]
    found = _find_end([wire])
    assert _find_end(_chopped(wire, 1)) == found
    assert _find_end(_chopped(wire, seed)) == found
    if not isinstance(found, int):
        return
    assert 0 < found <= _MAX_HEAD
    try:
        head = parse_head(wire[:found], max_headers=_MAX_HEADERS)
    except HeadError as error:
        _check_error(error)
        return
    _check_head(head, wire[:found])
    _check_request(head, options)


def _find_end(pieces: list[bytes]) -> int | tuple[int, str] | None:
    received = bytearray()
    for piece in pieces:
        start = len(received)
        received += piece
        try:
            found = find_end(received, start, max_size=_MAX_HEAD)
        except HeadError as error:
            _check_error(error)
            return (error.status, error.reason)
        if found is not None:
            return found
    assert len(received) < _MAX_HEAD
    return None


def _check_error(error: HeadError) -> None:
    assert error.status in _HEAD_STATUSES
    assert printable(error.reason)[1:-1] == error.reason  # it quotes nothing of the request


def _check_head(head: Head, wire: bytes) -> None:
    lines = wire.removeprefix(b"\r\n").split(b"\r\n")
    assert len(lines) == len(head.headers) + 3 or head.target.lower().startswith("http")
    # Nothing that another program could take for the end of a line, or of the text.
    assert not any(byte < 0x20 and byte != 0x09 for line in lines for byte in line)
    assert head.version in ("HTTP/1.0", "HTTP/1.1")
    assert head.path.startswith("/") or head.path == "*"
    assert "?" not in head.path
    names = [name.lower() for name, _ in head.headers]
    assert names.count("host") == 1 or (head.version == "HTTP/1.0" and "host" not in names)
    assert names.count("content-length") <= 1
    assert set(names) == set(head.fields)
    assert not (head.is_chunked and head.content_length is not None)
    assert head.content_length is None or head.content_length >= 0
    assert isinstance(head.keep_alive, bool)
    # Passed on as it was understood, it is understood in the same way.
    again = f"{head.method} {head.target} {head.version}\r\n"
    again += "".join(f"{name}: {value}\r\n" for name, value in head.headers)
    assert parse_head(f"{again}\r\n".encode("latin-1"), max_headers=_MAX_HEADERS + 1) == head


def _check_request(head: Head, options: Options) -> None:
    request = Request.from_environ(_environ(head))
    for text in (request.path, request.query, *request.cookies.values()):
        assert printable(text).isprintable()
    try:
        accepted = accept(request, options)
    except Refused as refused:
        _check_refused(refused)
        return
    assert head.method == "GET"
    assert head.version == "HTTP/1.1"
    assert request.wants_websocket
    assert not head.content_length
    assert not head.is_chunked
    _check_accepted(accepted, request)


def _check_refused(refused: Refused) -> None:
    assert refused.status in _HANDSHAKE_STATUSES
    assert refused.status_line.isprintable()
    assert refused.body.isascii()
    assert refused.body.isprintable()


def _environ(head: Head) -> dict[str, Any]:
    """As a server makes it (PEP 3333)."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": head.method,
        "SERVER_PROTOCOL": head.version,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(head.path).decode("latin-1"),
        "QUERY_STRING": head.query,
    }
    for name, value in head.fields.items():
        if "_" not in name:  # it would be taken for the same with "-"
            environ["HTTP_" + name.upper().replace("-", "_")] = value
    if head.content_length is not None:
        environ["CONTENT_LENGTH"] = str(head.content_length)
    return environ


def _check_accepted(accepted: Accepted, request: Request) -> None:
    status, *lines = accepted.head.split(b"\r\n")
    assert status == b"HTTP/1.1 101 Switching Protocols"
    assert lines[-2:] == [b"", b""]
    names = [line.partition(b": ")[0] for line in lines[:-2]]
    expected = [b"Upgrade", b"Connection", b"Sec-WebSocket-Accept"]
    if request.subprotocol is not None:
        expected.append(b"Sec-WebSocket-Protocol")
    assert names == expected
    assert b"\n" not in b"".join(lines)


# -- the client's address ------------------------------------------------------------------------

_PEERS: Final = ("10.1.2.3", "::ffff:10.1.2.3", "2001:db8::9", None, "", "192.0.2.1", "nonsense")
_HEADERS: Final[tuple[Literal["forwarded", "x-forwarded-for"] | None, ...]] = (
    None,
    "forwarded",
    "x-forwarded-for",
)
_MAX_PROXY_HEADER: Final = 16 + 216 + 4096


def forwarded(data: bytes) -> None:
    """The first byte chooses what is read, the second how it is cut."""
    if len(data) < 2:
        return
    choice, seed, rest = data[0], data[1], data[2:]
    if choice & 1:
        _check_proxy_header(rest, seed)
        return
    choice >>= 1
    proxies = TrustedProxies(["10.0.0.0/8", "2001:db8::/32", "unix"], header=_HEADERS[choice % 3])
    peer = _PEERS[(choice // 3) % len(_PEERS)]
    first, _, second = rest.decode("latin-1").partition("\n")
    headers = {"forwarded": first, "x-forwarded-for": second, "x-forwarded-proto": second}
    for names in (("forwarded",), ("x-forwarded-for", "x-forwarded-proto"), tuple(headers)):
        sent = {name: headers[name] for name in names}
        client = proxies.client(peer, sent)
        _check_client(client)
        if not proxies.trusts(peer):
            assert client == proxies.client(peer, {})
    _check_appended(first, second)


def _check_client(client: Client) -> None:
    if client.host not in (None, "unknown", "nonsense") and not client.host.startswith("_"):
        ip_address(client.host)
    assert client.port is None or 0 <= client.port <= 65535
    assert client.scheme in (None, "http", "https")


def _check_appended(first: str, second: str) -> None:
    """Whatever a client sends, the address that a trusted proxy appends is the one that counts."""
    proxies = TrustedProxies(["10.0.0.0/8"])
    for append in _appenders(first, second):
        for host, port in (("203.0.113.7", None), ("2001:db8::7", 4711)):
            client = proxies.client("10.1.2.3", append(host, port))
            assert client.host == host
            assert client.port in (None, port)


def _appenders(first: str, second: str) -> Iterator[Callable[[str, int | None], dict[str, str]]]:
    def forwarded(host: str, port: int | None) -> dict[str, str]:
        node = host if port is None else f'"[{host}]:{port}"'
        return {"forwarded": f"{first}, for={node};proto=https"}

    def x_forwarded_for(host: str, port: int | None) -> dict[str, str]:
        return {"x-forwarded-for": f"{second}, {host}", "x-forwarded-proto": second}

    def both(host: str, port: int | None) -> dict[str, str]:
        return {**forwarded(host, port), **x_forwarded_for(host, port)}

    yield from (forwarded, x_forwarded_for, both)


def _check_proxy_header(data: bytes, seed: int) -> None:
    whole = _read_proxy_header([data])
    assert _read_proxy_header(_chopped(data[:_MAX_PROXY_HEADER], 1)) == whole
    assert _read_proxy_header(_chopped(data, seed)) == whole
    if whole is None:
        assert len(data) < _MAX_PROXY_HEADER
    elif isinstance(whole, ProxyHeader):
        assert 0 < whole.size <= min(len(data), _MAX_PROXY_HEADER)
        assert read_proxy_header(data[: whole.size]) == whole
        assert read_proxy_header(bytearray(data + b"GET / HTTP/1.1\r\n\r\n")) == whole
        if isinstance(whole.source, tuple):
            address, port = whole.source
            assert str(ip_address(address)) == address
            assert 0 <= port <= 65535
            assert whole.size >= (16 + 12 if data.startswith(b"\r") else 22)
        elif whole.source is not None:
            assert len(whole.source) <= 4 * 108  # of the path, with each byte as an escape


def _read_proxy_header(pieces: list[bytes]) -> ProxyHeader | str | None:
    received = b""
    for piece in pieces:
        received += piece
        try:
            found = read_proxy_header(received)
        except ProxyError:
            return "error"
        if found is not None:
            return found
    return None


# -- the http carrier's streams and requests ------------------------------------------------------

_LENGTHS: Final = {  # of docs/http-carrier.md, by type: least and most bytes of payload
    0: (1, 65535),
    1: (4, 4),
    2: (7, 65535),
    3: (0, 0),
    4: (8, 8),
    5: (0, 0),
}


def carrier(data: bytes) -> None:
    """The first byte chooses what is read, the second how it is cut."""
    if len(data) < 2:
        return
    choice, seed, rest = data[0], data[1], data[2:]
    if choice & 1:
        _check_post(rest)
        return
    kinds = frozenset(Kind) if choice & 2 else UP
    expected, is_good = _naive_records(rest, kinds)
    for pieces in ([rest], _chopped(rest, 1), _chopped(rest, seed)):
        records, was_good = _read_records(pieces, kinds)
        assert was_good is is_good
        # Those before a bad one may be lost with it: the session is over.
        assert records == expected if is_good else records == expected[: len(records)]


def _read_records(
    pieces: list[bytes], kinds: frozenset[Kind]
) -> tuple[list[tuple[int, int, bytes]], bool]:
    reader = RecordReader(kinds)
    records: list[tuple[int, int, bytes]] = []
    for piece in pieces:
        try:
            for kind, channel, payload in reader.feed(piece):
                if kind == Kind.DATA:  # each byte by itself, as neighbours may come together
                    records += [(0, channel, payload[i : i + 1]) for i in range(len(payload))]
                else:
                    records.append((kind, channel, payload))
        except RecordError:
            return records, False
    return records, True


def _naive_records(
    data: bytes, kinds: frozenset[Kind]
) -> tuple[list[tuple[int, int, bytes]], bool]:
    records: list[tuple[int, int, bytes]] = []
    while len(data) >= 8:
        kind, zero = data[0], data[1]
        size = int.from_bytes(data[2:4], "big")
        channel = int.from_bytes(data[4:8], "big")
        if zero or kind not in kinds or channel >= 1 << 31:
            return records, False
        least, most = _LENGTHS[kind]
        if not least <= size <= most or ((kind in (4, 5)) != (channel == 0) and kind != 3):
            return records, False
        if kind == 0:  # as far as it goes
            records += [(0, channel, bytes((byte,))) for byte in data[8 : 8 + size]]
        if len(data) < 8 + size:
            break
        payload, data = data[8 : 8 + size], data[8 + size :]
        value = int.from_bytes(payload, "big")
        if (kind == 1 and not 0 < value < 1 << 31) or (kind == 4 and value >= 1 << 53):
            return records, False
        if kind != 0:
            records.append((kind, channel, payload))
    return records, True


def _check_post(body: bytes) -> None:
    """What a request is read as, written again, is the request."""
    with suppress(posts.PostError):
        if (up := posts.read_up(body)) is not None:
            numbers = up.received.to_bytes(8, "big") + up.offset.to_bytes(8, "big")
            assert body[1:] == bytes((len(up.token),)) + up.token + numbers + up.data
    with suppress(posts.PostError):
        down = posts.read_down(body)
        numbers = down.offset.to_bytes(8, "big") + down.number.to_bytes(4, "big")
        end = bytes((down.is_poll, down.seconds))
        assert body[1:] == bytes((len(down.token),)) + down.token + numbers + end
    with suppress(posts.PostError):
        made = posts.read_open(body)
        again = bytes((len(made.token),)) + made.token + made.nonce
        again += made.channel.to_bytes(4, "big") + bytes((made.is_poll, made.seconds))
        again += made.credit.to_bytes(4, "big")
        for text in (made.subprotocols, made.extensions):
            again += len(text).to_bytes(2, "big") + text.encode("latin-1")
        assert body[1:] == again
        assert not any(character in made.subprotocols for character in "\r\n\0")


ALL: Final[dict[str, Callable[[bytes], None]]] = {
    "protocol": protocol,
    "deflate": deflate,
    "handshake": handshake,
    "forwarded": forwarded,
    "carrier": carrier,
}
