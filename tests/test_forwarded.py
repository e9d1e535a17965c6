"""forwarded.py: who the client is behind proxies, and who can not make himself somebody else."""

from __future__ import annotations

import re
import time
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from plainsocket.forwarded import (
    Client,
    ProxyError,
    ProxyHeader,
    TrustedProxies,
    read_proxy_header,
)

PROXIES = TrustedProxies(["10.0.0.0/8", "2001:db8:1::/48", "192.0.2.7", "unix"])
PEER = "10.0.0.1"


def client(
    headers: dict[str, str], peer: str | None = PEER, proxies: TrustedProxies = PROXIES
) -> Client:
    return proxies.client(peer, headers)


def by_forwarded(value: str) -> Client:
    return client({"forwarded": value})


def by_x_forwarded(value: str, proto: str | None = None) -> Client:
    headers = {"x-forwarded-for": value}
    if proto is not None:
        headers["x-forwarded-proto"] = proto
    return client(headers)


# -- whom to trust -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("10.255.0.1", True),
        ("11.0.0.1", False),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("2001:db8:1::5", True),
        ("2001:db8:2::5", False),
        ("::ffff:10.0.0.1", True),
        ("::ffff:11.0.0.1", False),
        ("::10.0.0.1", False),
        (None, True),
        ("", True),
        ("unix", False),
        ("_hidden", False),
        ("localhost", False),
    ],
)
def test_trust(peer: str | None, expected: bool) -> None:
    assert PROXIES.trusts(peer) is expected


def test_trusting_nobody() -> None:
    proxies = TrustedProxies([])
    for peer in ("127.0.0.1", "::1", None):
        assert not proxies.trusts(peer)


def test_zone_of_a_peer() -> None:
    proxies = TrustedProxies(["fe80::/10"])
    assert proxies.trusts("fe80::1%eth0")
    assert proxies.client("fe80::1%eth0", {}) == Client("fe80::1%eth0")


def test_network_is_read_in_any_spelling() -> None:
    proxies = TrustedProxies(["2001:DB8:0::/48", "10.1.2.3", "10.2.0.0/255.255.0.0"])
    assert proxies.trusts("2001:db8::1")
    assert proxies.trusts("10.1.2.3")
    assert proxies.trusts("10.2.255.255")


@pytest.mark.parametrize(
    ("network", "part"),
    [
        ("localhost", "'localhost' is no IP address, network or \"unix\""),
        ("10.0.0.0/33", "no IP address"),
        ("::1/129", "no IP address"),
        ("10.0.0.1/8", "perhaps 10.0.0.0/8 is meant"),
        ("fe80::1%eth0", "without it"),
        ("", "no IP address"),
        ("*", "no IP address"),
        ("UNIX", "no IP address"),
        ("010.0.0.1", "no IP address"),
        ("::ffff:10.0.0.0/104", "without ::ffff:"),
        (167772161, "no IP address"),
        (None, "no IP address"),
    ],
)
def test_what_is_no_network(network: Any, part: str) -> None:
    with pytest.raises(ValueError, match=re.escape(part)):
        TrustedProxies(["10.0.0.0/8", network])


def test_one_str_is_no_list() -> None:
    with pytest.raises(TypeError, match="list"):
        TrustedProxies("10.0.0.0/8")


def test_unknown_header() -> None:
    header: Any = "X-Real-IP"
    with pytest.raises(ValueError, match="X-Real-IP"):
        TrustedProxies([], header=header)


# -- without a word ------------------------------------------------------------------------------

LIES = {
    "forwarded": "for=1.1.1.1;proto=https",
    "x-forwarded-for": "1.1.1.1",
    "x-forwarded-proto": "https",
}


@pytest.mark.parametrize("peer", ["11.0.0.1", "2001:db8:2::1", "nonsense"])
def test_nothing_is_believed_from_a_stranger(peer: str) -> None:
    assert client(LIES, peer) == Client(peer, None, None)


def test_nothing_is_believed_from_a_unix_socket_unless_it_is_named() -> None:
    assert client(LIES, None, TrustedProxies(["0.0.0.0/0", "::/0"])) == Client(None, None, None)
    assert client(LIES, None).host == "1.1.1.1"
    assert client(LIES, "").host == "1.1.1.1"


def test_proxy_that_says_nothing_is_the_client() -> None:
    assert client({}) == Client(PEER, None, None)
    assert client({}, None) == Client(None, None, None)


def test_peer_of_a_dual_stack_socket_is_shown_as_ipv4() -> None:
    assert client({}, "::ffff:11.0.0.1") == Client("11.0.0.1", None, None)
    assert client({}, "2001:DB8:2:0::1") == Client("2001:db8:2::1", None, None)


# -- Forwarded -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("for=192.0.2.43", Client("192.0.2.43")),
        ('For="[2001:db8:cafe::17]:4711"', Client("2001:db8:cafe::17", 4711)),
        ('for="[2001:DB8:CAFE:0::17]"', Client("2001:db8:cafe::17")),
        ('for="[::ffff:1.2.3.4]:5"', Client("1.2.3.4", 5)),
        ('for="1.2.3.4:65535"', Client("1.2.3.4", 65535)),
        ('for="1.2.3.4:_port"', Client("1.2.3.4")),
        ('for="1\\.2.3.4"', Client("1.2.3.4")),
        ("for=192.0.2.60;proto=http;by=203.0.113.43", Client("192.0.2.60", None, "http")),
        ("PROTO=HTTPS;FOR=192.0.2.60", Client("192.0.2.60", None, "https")),
        ("for=192.0.2.60; proto=https ;host=a", Client("192.0.2.60", None, "https")),
        (";for=192.0.2.60;;proto=https;", Client("192.0.2.60", None, "https")),
        ("for=192.0.2.60;proto=wss", Client("192.0.2.60", None, "https")),
        ("for=192.0.2.60;proto=gopher", Client("192.0.2.60", None, None)),
        ('for=192.0.2.60;host="a,b;c=\\"d\\""', Client("192.0.2.60")),
        ("for=unknown;proto=https", Client("unknown", None, "https")),
        ("for=Unknown", Client("unknown")),
        ("proto=https", Client("unknown", None, "https")),
        ("for=_gazonk", Client("_gazonk")),
        ('for="_SEVKISEK:_7"', Client("_SEVKISEK")),
    ],
)
def test_forwarded(value: str, expected: Client) -> None:
    assert by_forwarded(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        # What the client wrote stands on the left.
        ("for=1.1.1.1, for=2.2.2.2", Client("2.2.2.2")),
        ("for=1.1.1.1;proto=https,for=2.2.2.2", Client("2.2.2.2")),
        # The outermost trusted proxy knows how the client came.
        ("for=2.2.2.2;proto=https, for=10.0.0.2;proto=http", Client("2.2.2.2", None, "https")),
        ('for=1.1.1.1, for=2.2.2.2, for="[2001:db8:1::1]:9", for=10.0.0.2', Client("2.2.2.2")),
        # All are trusted: the outermost one.
        ('for="10.0.0.3:77";proto=https, for=10.0.0.2', Client("10.0.0.3", 77, "https")),
        # Names are nobody's that is trusted.
        ("for=10.0.0.3, for=_name, for=10.0.0.2", Client("_name")),
        ("for=10.0.0.3, for=unknown", Client("unknown")),
        ("for=10.0.0.3, proto=https", Client("unknown", None, "https")),
    ],
)
def test_forwarded_through_several_proxies(value: str, expected: Client) -> None:
    assert by_forwarded(value) == expected


MALFORMED_ELEMENTS = [
    "",
    " ",
    ";",
    "for",
    "for=",
    "for=1.2.3",
    "for=1.2.3.4.5",
    "for=1.2.3.256",
    "for=01.2.3.4",
    "for=1.2.3.4:80",
    "for=2001:db8::1",
    'for="2001:db8::1"',
    'for="[2001:db8::1"',
    'for="[2001:db8::1%eth0]"',
    'for="[]"',
    'for="1.2.3.4:65536"',
    'for="1.2.3.4:"',
    'for="1.2.3.4 "',
    'for="1.2.3.4',
    'for=1.2.3.4"',
    'for="1.2.3.4"x',
    "for=a.example",
    "for=_",
    "for=_\xe9",
    "for= 1.2.3.4",
    "for =1.2.3.4",
    "for=1.2.3.4 for=1.2.3.4",
    "for=1.2.3.4;for=1.2.3.4",
    "for=1.2.3.4;proto=http;Proto=https",
    "for=1.2.3.4;x",
    "for=1.2.3.4;=x",
    "1.2.3.4",
    "(=1",
]


@pytest.mark.parametrize("element", MALFORMED_ELEMENTS)
def test_malformed_element_of_forwarded_ends_the_walk(element: str) -> None:
    assert by_forwarded(element) == Client(PEER)
    assert by_forwarded(f"for=1.1.1.1, {element}, for=10.0.0.2") == Client("10.0.0.2")
    assert by_forwarded(f"{element}, for=2.2.2.2") == Client("2.2.2.2")


@pytest.mark.parametrize(
    "lie",
    [
        'for="',
        '"',
        'for="1.1.1.1',
        'for=1.1.1.1;x="\\',
        'for=1.1.1.1;x="\\"',
        "for=1.1.1.1;x=\\",
        'for="a\\\\"b"',
        ",,,",
    ],
)
def test_client_can_not_swallow_what_the_proxy_appends(lie: str) -> None:
    assert by_forwarded(f"{lie}, for=6.6.6.6;proto=http") == Client("6.6.6.6", None, "http")
    appended = 'for="6.6.6.6:1";host="a\\", for=1.1.1.1;\\\\";proto=http'
    assert by_forwarded(f"{lie}, {appended}") == Client("6.6.6.6", 1, "http")


# -- X-Forwarded-For -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("192.0.2.43", Client("192.0.2.43")),
        ("192.0.2.43:80", Client("192.0.2.43", 80)),
        ("2001:DB8:2::1", Client("2001:db8:2::1")),
        ("[2001:db8:2::1]", Client("2001:db8:2::1")),
        ("[2001:db8:2::1]:80", Client("2001:db8:2::1", 80)),
        ("::ffff:1.2.3.4", Client("1.2.3.4")),
        ("unknown", Client("unknown")),
        ("1.1.1.1, 2.2.2.2", Client("2.2.2.2")),
        ("1.1.1.1,2.2.2.2 ,\t10.0.0.2,2001:db8:1::1", Client("2.2.2.2")),
        ("10.0.0.3:77, 10.0.0.2", Client("10.0.0.3", 77)),
        ("10.0.0.3, unknown, 10.0.0.2", Client("unknown")),
    ],
)
def test_x_forwarded_for(value: str, expected: Client) -> None:
    assert by_x_forwarded(value) == expected


@pytest.mark.parametrize(
    "element",
    ["", "a.example", "1.2.3", "1.2.3.4:", "1.2.3.4:99999", "2001:db8::1::", "[1.2.3.4]",
     "for=1.2.3.4", '"1.2.3.4"', "unix:", "fe80::1%eth0", "-", "1.2.3.4 1.2.3.4", "[", "]", ":",
     "::::", "[::1"],
)  # fmt: skip
def test_malformed_element_of_x_forwarded_for_ends_the_walk(element: str) -> None:
    assert by_x_forwarded(element) == Client(PEER)
    assert by_x_forwarded(f"1.1.1.1, {element}, 10.0.0.2") == Client("10.0.0.2")
    assert by_x_forwarded(f"{element}, 2.2.2.2") == Client("2.2.2.2")


@pytest.mark.parametrize(
    ("proto", "scheme"),
    [
        ("https", "https"),
        ("HTTP", "http"),
        ("wss", "https"),
        ("ws", "http"),
        ("https, http", "http"),  # only the last one is certainly not the client's
        ("http,https", "https"),
        ("", None),
        ("https,", None),
        ("on", None),
    ],
)
def test_x_forwarded_proto(proto: str, scheme: str | None) -> None:
    assert by_x_forwarded("2.2.2.2", proto) == Client("2.2.2.2", None, scheme)
    assert client({"x-forwarded-proto": proto}) == Client(PEER, None, scheme)


# -- both ----------------------------------------------------------------------------------------


def test_where_the_two_headers_differ_neither_is_believed() -> None:
    said = client({"forwarded": "for=1.1.1.1;proto=https", "x-forwarded-for": "2.2.2.2"})
    assert said == Client("unknown", None, None)


def test_what_both_headers_say_is_believed() -> None:
    headers = {"forwarded": 'for="2.2.2.2:80";proto=https', "x-forwarded-for": "2.2.2.2"}
    assert client(headers) == Client("2.2.2.2", None, None)
    headers["x-forwarded-for"] = "2.2.2.2:80"
    assert client(headers) == Client("2.2.2.2", 80, None)
    headers["x-forwarded-proto"] = "https"
    assert client(headers) == Client("2.2.2.2", 80, "https")
    headers["x-forwarded-proto"] = "http"
    assert client(headers) == Client("2.2.2.2", 80, None)


def test_only_the_header_that_the_proxies_set_is_read() -> None:
    headers = {
        "forwarded": "for=1.1.1.1;proto=http",
        "x-forwarded-for": "2.2.2.2",
        "x-forwarded-proto": "https",
    }
    one = TrustedProxies([PEER], header="forwarded")
    other = TrustedProxies([PEER], header="x-forwarded-for")
    assert client(headers, PEER, one) == Client("1.1.1.1", None, "http")
    assert client(headers, PEER, other) == Client("2.2.2.2", None, "https")
    del headers["forwarded"]
    assert client(headers, PEER, one) == Client(PEER, None, None)


# -- any header ----------------------------------------------------------------------------------

ADDRESS = st.ip_addresses().map(str)
PIECES = st.lists(
    st.sampled_from(
        ["for", "=", '"', "\\", ",", ";", " ", "proto", "https", "unknown", "_a", "[", "]", ":",
         "10.0.0.2", "1.1.1.1", "::1", "80", "\x00", "\xff"]
    )
).map("".join)  # fmt: skip


def appended(address: str, *, quoted: bool) -> str:
    text = f"[{address}]" if ":" in address else address
    return f'for="{text}"' if quoted or ":" in address else f"for={text}"


@given(PIECES | st.text(st.characters(max_codepoint=0xFF)), ADDRESS, st.booleans())
@example('for="', "6.6.6.6", False)
def test_no_client_can_hide_behind_what_it_sends(lie: str, address: str, quoted: bool) -> None:
    """A proxy that appends the address it sees is believed, whatever stands before."""
    proxies = TrustedProxies(["unix"])
    true = proxies.client(address, {}).host
    said = proxies.client(None, {"forwarded": f"{lie}, {appended(address, quoted=quoted)}"})
    assert said == Client(true, None, None)
    said = proxies.client(None, {"x-forwarded-for": f"{lie}, {address}"})
    assert said == Client(true, None, None)


def is_host(host: str | None) -> bool:
    try:
        return str(ip_address(host or "")) == host
    except ValueError:
        return host is not None and (host == "unknown" or host.startswith("_a"))


@given(PIECES, PIECES, PIECES)
def test_any_header_gives_a_client(forwarded: str, for_: str, proto: str) -> None:
    headers = {"forwarded": forwarded, "x-forwarded-for": for_, "x-forwarded-proto": proto}
    for present in ([], ["forwarded"], ["x-forwarded-for", "x-forwarded-proto"], list(headers)):
        host, port, scheme = client({name: headers[name] for name in present})
        assert is_host(host)
        assert port is None or 0 <= port <= 65535
        assert scheme in {None, "http", "https"}


@pytest.mark.parametrize(
    "piece", ['"', '\\"', ",", '",', 'a="', "for=10.0.0.2,", ";", "a=b;", '"\\']
)
def test_time_is_linear_in_the_header(piece: str) -> None:
    """A quadratic walk would take minutes for this."""
    value = piece * (300_000 // len(piece))
    before = time.process_time()
    by_forwarded(value)
    by_forwarded(value + "for=10.0.0.2")
    by_x_forwarded(value)
    assert time.process_time() - before < 10


# -- the PROXY protocol --------------------------------------------------------------------------

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V4 = bytes([1, 2, 3, 4, 5, 6, 7, 8]) + b"\x00\x50\x01\xbb"
V6 = IPv6Address("2001:db8::1").packed + IPv6Address("::2").packed + b"\xff\xff\x01\xbb"
TLV = b"\x04\x00\x03abc"


def unix_block(path: bytes) -> bytes:
    return path.ljust(108, b"\0") + b"/server".ljust(108, b"\0")


def v2(kind: int, block: bytes, command: int = 0x21) -> bytes:
    return SIGNATURE + bytes([command, kind]) + len(block).to_bytes(2, "big") + block


GOOD_HEADERS = [
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 80 443\r\n", ("1.2.3.4", 80)),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", ("255.255.255.255", 65535)),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 0 0\r\n", ("1.2.3.4", 0)),
    (b"PROXY TCP6 2001:DB8::1 ::2 80 443\r\n", ("2001:db8::1", 80)),
    (b"PROXY TCP6 ::ffff:1.2.3.4 ::2 80 443\r\n", ("1.2.3.4", 80)),
    (b"PROXY TCP6 " + b" ".join([b"ffff:" * 7 + b"ffff"] * 2) + b" 65535 65535\r\n",
     (":".join(["ffff"] * 8), 65535)),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN whatever\nthis \xff is\r\n", None),
    (b"PROXY UNKNOWN ".ljust(105, b"x") + b"\r\n", None),
    (v2(0x11, V4), ("1.2.3.4", 80)),
    (v2(0x11, V4 + TLV), ("1.2.3.4", 80)),
    (v2(0x11, V4 + bytes(4300)), ("1.2.3.4", 80)),
    (v2(0x21, V6), ("2001:db8::1", 65535)),
    (v2(0x21, IPv6Address("::ffff:1.2.3.4").packed + bytes(20)), ("1.2.3.4", 0)),
    (v2(0x31, unix_block(b"/run/client")), "/run/client"),
    (v2(0x31, unix_block(b"\0abstract") + TLV), "\0abstract"),
    (v2(0x31, unix_block(b"")), ""),
    (v2(0x31, unix_block(b"\xff")), "\\xff"),
    (v2(0x00, b""), None),
    (v2(0x00, V4 + TLV), None),
    (v2(0x10, V4), None),
    (v2(0x01, V4), None),
    (v2(0x12, V4), None),  # datagrams: nothing that this server could be spoken to with
    (v2(0x00, b"", 0x20), None),
    (v2(0x11, V4, 0x20), None),  # LOCAL: the rest does not matter
    (v2(0xFF, V4, 0x20), None),
]  # fmt: skip


@pytest.mark.parametrize(("data", "source"), GOOD_HEADERS)
def test_proxy_header(data: bytes, source: tuple[str, int] | str | None) -> None:
    assert read_proxy_header(data) == ProxyHeader(len(data), source)
    assert read_proxy_header(data + b"GET / HTTP/1.1\r\n") == ProxyHeader(len(data), source)
    assert read_proxy_header(bytearray(data)) == ProxyHeader(len(data), source)
    for size in range(len(data)):
        assert read_proxy_header(data[:size]) is None


@pytest.mark.parametrize(
    "data",
    [
        b"G",
        b"GET / HTTP/1.1\r\n",
        b"POST / HTTP/1.1\r\n",
        b"PROXY\r\n",
        b"proxy TCP4 1.2.3.4 5.6.7.8 80 443\r\n",
        b"\r\nPROXY TCP4 1.2.3.4 5.6.7.8 80 443\r\n",
        b"PROXY \r\n",
        b"PROXY  TCP4 1.2.3.4 5.6.7.8 80 443\r\n",
        b"PROXY TCP4 1.2.3.4  5.6.7.8 80 443\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 80 443 \r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 80 443\n\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 80 443\nGET / HTTP/1.1\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 80 443\rGET / HTTP/1.1\r\n",
        b"PROXY TCP4\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 80\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 80 65536\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 080 443\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 -1 443\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 \xb2 443\r\n",
        b"PROXY TCP4 1.2.3.256 5.6.7.8 80 443\r\n",
        b"PROXY TCP4 01.2.3.4 5.6.7.8 80 443\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7 80 443\r\n",
        b"PROXY TCP4 ::1 ::2 80 443\r\n",
        b"PROXY TCP6 1.2.3.4 5.6.7.8 80 443\r\n",
        b"PROXY TCP6 fe80::1%a ::2 80 443\r\n",
        b"PROXY UDP4 1.2.3.4 5.6.7.8 80 443\r\n",
        b"PROXY UNKNOWNX\r\n",
        b"PROXY UNKNOWN ".ljust(107, b"x"),
        b"PROXY UNKNOWN ".ljust(106, b"x") + b"\r\n",
        b"\r\n\r\n\0\r\nQUIX",
        SIGNATURE + b"\x11\x11\x00\x0c" + V4,
        SIGNATURE + b"\x31\x11\x00\x0c" + V4,
        v2(0x11, V4, 0x22),
        v2(0x41, V4),
        v2(0x13, V4),
        v2(0x11, V4[:-1]),
        v2(0x21, V6[:-1]),
        v2(0x31, unix_block(b"/a")[:-1]),
        v2(0x11, V4 + bytes(4301)),
        SIGNATURE + b"\x21\x11\xff\xff",
    ],
)
def test_what_is_no_proxy_header(data: bytes) -> None:
    with pytest.raises(ProxyError):
        read_proxy_header(data)


def proxy_outcome(data: bytes) -> ProxyHeader | str | None:
    try:
        return read_proxy_header(data)
    except ProxyError as error:
        return str(error)


@given(
    st.binary(max_size=200)
    | st.binary(max_size=120).map(lambda rest: b"PROXY " + rest)
    | st.binary(max_size=300).map(lambda rest: SIGNATURE + rest)
    | st.builds(
        v2,
        st.integers(0, 255),
        st.binary(max_size=300),
        st.sampled_from([0x20, 0x21, 0x22, 0x11]),
    ),
    st.binary(max_size=20),
)
def test_any_bytes_are_a_proxy_header_or_not_however_they_arrive(data: bytes, more: bytes) -> None:
    data += more
    outcome = proxy_outcome(data)
    earlier = [proxy_outcome(data[:size]) for size in range(len(data))]
    decided = [each for each in earlier if each is not None]
    assert all(each == outcome for each in decided)
    assert earlier == [None] * (len(earlier) - len(decided)) + decided
    if isinstance(outcome, ProxyHeader):
        assert 0 < outcome.size <= len(data)


@given(st.ip_addresses(), st.integers(0, 65535))
def test_both_versions_give_the_same(address: IPv4Address | IPv6Address, port: int) -> None:
    one = f"PROXY TCP{address.version} {address} {address} {port} 443\r\n".encode()
    block = address.packed * 2 + port.to_bytes(2, "big") + b"\x01\xbb"
    other = v2(0x11 if address.version == 4 else 0x21, block)
    mapped = getattr(address, "ipv4_mapped", None)
    expected = (str(mapped or address), port)
    assert read_proxy_header(one) == ProxyHeader(len(one), expected)
    assert read_proxy_header(other) == ProxyHeader(len(other), expected)
