"""Who the client is where proxies stand between: by the headers that they add, or by the PROXY
protocol. What a proxy says counts only if the proxy is trusted. No I/O.

A client can send these headers as well, so only what trusted proxies appended is worth anything,
and that stands on the right.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_interface
from typing import Final, Literal, NamedTuple

_Header = Literal["forwarded", "x-forwarded-for"]

_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # RFC 9110 section 5.6.2
_PAIR: Final = re.compile(
    rf'({_TOKEN})=(?:({_TOKEN})|"((?:[^"\\]|\\.)*)")[ \t]*(?:;[ \t;]*|\Z)', re.DOTALL
)  # RFC 7239 section 4; the white space around ";" is not in it, but proxies send some
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_NODE: Final = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<v4>[0-9.]+)|(?P<name>(?i:unknown)|_[A-Za-z0-9._-]+))"
    r"(?::(?:(?P<port>[0-9]{1,5})|_[A-Za-z0-9._-]+))?"
)  # RFC 7239 section 6
_SCHEMES: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_UNKNOWN: Final = "unknown"


class Client(NamedTuple):
    """Who sent a request."""

    host: str | None
    """An IP address; or what a proxy wrote instead: "unknown", or a name that begins with "_"
    (RFC 7239 section 6.3). None: a program on this machine, through a Unix socket."""
    port: int | None = None
    scheme: str | None = None
    """How the client reached the outermost trusted proxy: "http" or "https"; None if none of them
    said, or there is no proxy."""


class TrustedProxies:
    """The proxies whose word counts.

    `networks` are IP addresses and networks ("10.0.0.0/8", "2001:db8::1"), and "unix" for all who
    come through a Unix socket. ValueError for what is neither.

    `header` names the header that the proxies set, "forwarded" (RFC 7239) or "x-forwarded-for";
    the other one is then ignored. None: whichever is there. A proxy sets one of them, usually, and
    passes on the other as the client sent it, and which one that is nobody can tell from the
    request. So if both are there, only what both say is believed; where they differ about the
    host it is "unknown".

    The trusted proxies have to append to that header, or to overwrite it: one that passes it on
    as it came speaks with the client's voice. The same goes for X-Forwarded-Proto.
    """

    def __init__(self, networks: Iterable[str], *, header: _Header | None = None) -> None:
        if isinstance(networks, str):
            raise TypeError("trusted proxies are a list of networks, not one str")
        if header not in (None, "forwarded", "x-forwarded-for"):
            raise ValueError(
                f'header must be "forwarded", "x-forwarded-for" or None, not {header!r}'
            )
        networks = [str(network) for network in networks]
        self._trusts_unix = "unix" in networks
        self._networks = [_parse_network(text) for text in networks if text != "unix"]
        self._header = header

    def trusts(self, peer: str | None) -> bool:
        """Whether a connection's peer is a trusted proxy: an IP address, or None (or "") for the
        peer of a Unix socket. Ask this also before a PROXY header is read."""
        if not peer:
            return self._trusts_unix
        try:
            address = _normalised(ip_address(peer))
        except ValueError:
            return False
        return any(address in network for network in self._networks)

    def client(self, peer: str | None, headers: Mapping[str, str]) -> Client:
        """Return who sent a request.

        `peer` is the connection's, as for `trusts`; `headers` are by lower-case name, repeated
        ones joined by commas in their order.
        """
        nearest = Client(_canonical(peer))
        if not self.trusts(peer):
            return nearest
        answers = []
        if "forwarded" in headers and self._header != "x-forwarded-for":
            answers.append(self._walk(nearest, _forwarded_hops(headers["forwarded"])))
        if "x-forwarded-for" in headers and self._header != "forwarded":
            found = self._walk(nearest, _x_forwarded_hops(headers["x-forwarded-for"]))
            answers.append(found._replace(scheme=_x_forwarded_scheme(headers)))
        if len(answers) == 2:
            return _what_both_say(*answers)
        if answers:
            return answers[0]
        # Such a proxy may still have told the scheme, in the header that goes with the usual one.
        return nearest._replace(
            scheme=None if self._header == "forwarded" else _x_forwarded_scheme(headers)
        )

    def _walk(self, nearest: Client, hops: Iterable[Client | None]) -> Client:
        """Go from proxy to proxy, from this server outwards, for as long as they are trusted."""
        client = nearest
        for hop in hops:
            if hop is None:  # malformed: what stands beyond it is nobody's word
                break
            client = hop
            if not self.trusts(hop.host):
                break
        return client


def _what_both_say(one: Client, other: Client) -> Client:
    return Client(
        one.host if one.host == other.host else _UNKNOWN,
        one.port if one[:2] == other[:2] else None,
        one.scheme if one.scheme == other.scheme else None,
    )


# -- addresses -----------------------------------------------------------------------------------


def _parse_network(text: str) -> IPv4Network | IPv6Network:
    try:
        interface = ip_interface(text)
    except ValueError:
        raise ValueError(f'{text!r} is no IP address, network or "unix"') from None
    network = interface.network
    if "%" in text:
        raise ValueError(f"{text!r} has a zone: write the address without it")
    if interface.ip != network.network_address:
        raise ValueError(f"{text!r} is an address within a network: perhaps {network} is meant")
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        raise ValueError(f"{text!r} are IPv4 addresses: write them as such, without ::ffff:")
    return network


_MAPPED: Final = IPv6Network("::ffff:0:0/96")  # how a dual-stack socket shows IPv4 peers


def _normalised(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    return getattr(address, "ipv4_mapped", None) or address


def _canonical(peer: str | None) -> str | None:
    if not peer:
        return None
    try:
        return str(_normalised(ip_address(peer)))
    except ValueError:
        return peer


def _parse_node(text: str) -> Client | None:
    """RFC 7239 section 6: an address or a name, perhaps with a port; None if it is neither."""
    match = _NODE.fullmatch(text)
    if match is None:
        return None
    port = None if match["port"] is None else int(match["port"])
    if port is not None and port > 65535:
        return None
    try:
        if match["v4"] is not None:
            return Client(str(IPv4Address(match["v4"])), port)
        if match["v6"] is not None:
            return Client(str(_normalised(IPv6Address(match["v6"]))), port)
    except ValueError:
        return None
    return Client(_UNKNOWN if match["name"].lower() == _UNKNOWN else match["name"], port)


# -- headers -------------------------------------------------------------------------------------


def _forwarded_hops(value: str) -> Iterator[Client | None]:
    """The elements of Forwarded from the right; None for a malformed one."""
    for element in _from_the_right(value):
        pairs = _parse_element(element)
        # An element that names no client is as good as one that calls it unknown.
        node = None if pairs is None else _parse_node(pairs.get("for", _UNKNOWN))
        if pairs is None or node is None:
            yield None
        else:
            yield node._replace(scheme=_SCHEMES.get(pairs.get("proto", "").lower()))


def _from_the_right(value: str) -> Iterator[str]:
    """Split at commas outside quoted strings, beginning at the end.

    From the left, a quote that the client never closed would swallow what the proxies appended.
    """
    end = i = len(value)
    while i > 0:
        i -= 1
        if value[i] == '"':
            i = _opening_quote(value, i)
        elif value[i] == ",":
            yield value[i + 1 : end]
            end = i
    yield value[:end]


def _opening_quote(value: str, closing: int) -> int:
    """Return the index of the quote that belongs to the one at `closing`; 0 if there is none."""
    i = value.rfind('"', 0, closing)
    while i > 0:
        before = i
        while before > 0 and value[before - 1] == "\\":
            before -= 1
        if (i - before) % 2 == 0:
            return i
        i = value.rfind('"', 0, before)
    return 0


def _parse_element(element: str) -> dict[str, str] | None:
    """The parameters of an element of Forwarded, by lower-case name; None if it is malformed."""
    element = element.strip(" \t;")
    pairs: dict[str, str] = {}
    position = 0
    while position < len(element):
        match = _PAIR.match(element, position)
        if match is None or match[1].lower() in pairs:  # each may come once
            return None
        value = match[2] if match[3] is None else _ESCAPED.sub(r"\1", match[3])
        pairs[match[1].lower()] = value
        position = match.end()
    return pairs or None


def _x_forwarded_hops(value: str) -> Iterator[Client | None]:
    """The addresses in X-Forwarded-For from the right; None for a malformed one.

    An empty one is malformed too: it may be a proxy's way to say that it does not know.
    """
    end = len(value)
    while end >= 0:
        start = value.rfind(",", 0, end)
        text = value[start + 1 : end].strip(" \t")
        # There is no specification: some send IPv6 in brackets, most do not.
        yield _parse_node(f"[{text}]" if text.count(":") > 1 and text[0] != "[" else text)
        end = start


def _x_forwarded_scheme(headers: Mapping[str, str]) -> str | None:
    """Of several values the last one is the only one that surely is a trusted proxy's."""
    last = headers.get("x-forwarded-proto", "").rpartition(",")[2]
    return _SCHEMES.get(last.strip(" \t").lower())


# -- the PROXY protocol --------------------------------------------------------------------------


class ProxyError(Exception):
    """A connection does not begin with a PROXY header. It is to be closed without an answer."""


class ProxyHeader(NamedTuple):
    """What a proxy says at the beginning of a connection that it passes on."""

    size: int
    """Length of the header in bytes; the client's own bytes come behind it."""
    source: tuple[str, int] | str | None
    """The client's IP address and port, or the path ("" for none) of its Unix socket. None: the
    proxy speaks for itself, or cannot say, and the connection's own peer counts."""


_MAX_V1: Final = 107
_V2: Final = b"\r\n\r\n\0\r\nQUIT\n"
_MAX_V2: Final = 216 + 4096  # addresses, and additions to them (TLVs)
_INET, _INET6, _UNIX = 1, 2, 3
_IP_SIZES: Final = {_INET: 4, _INET6: 16}
_V1_LINE: Final = re.compile(
    r"PROXY (?:UNKNOWN(?: .*)?"
    r"|(TCP[46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4}))",
    re.DOTALL,
)


def read_proxy_header(data: bytes | bytearray) -> ProxyHeader | None:
    """Read the header of HAProxy's PROXY protocol, version 1 or 2, that `data` begins with.

    None: more bytes are needed; call again with all so far. At most 4,328 bytes ever are. Raises
    ProxyError for everything else, as soon as that is clear.

    Call it only if the server was told to expect the header, and only for trusted peers, and then
    for every connection: to guess would let any client choose its address (the specification's
    section 2).
    """
    if data[:12] == _V2[: len(data)]:
        return _read_v2(data)
    if data[:6] == b"PROXY "[: len(data)]:
        return _read_v1(data)
    raise ProxyError("The connection does not begin with a PROXY header.")


def _read_v1(data: bytes | bytearray) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, _MAX_V1)
    if end < 0:
        if len(data) < _MAX_V1:
            return None
        raise ProxyError(f"The PROXY header does not end within {_MAX_V1} bytes.")
    match = _V1_LINE.fullmatch(data[:end].decode("latin-1"))
    if match is None:
        raise ProxyError("The PROXY header is malformed.")
    if match[1] is None:
        return ProxyHeader(end + 2, None)
    parse = IPv4Address if match[1] == "TCP4" else IPv6Address
    try:
        source, _ = parse(match[2]), parse(match[3])
    except ValueError:
        raise ProxyError("An address in the PROXY header is malformed.") from None
    if max(int(match[4]), int(match[5])) > 65535:
        raise ProxyError("A port in the PROXY header is malformed.")
    return ProxyHeader(end + 2, (str(_normalised(source)), int(match[4])))


def _read_v2(data: bytes | bytearray) -> ProxyHeader | None:
    if len(data) < 16:
        return None
    version, command = divmod(data[12], 16)
    family, transport = divmod(data[13], 16)
    length = int.from_bytes(data[14:16], "big")
    if version != 2 or command > 1 or (command == 1 and (family > 3 or transport > 2)):
        raise ProxyError("The PROXY header is of a version or kind that is not specified.")
    if length > _MAX_V2:
        raise ProxyError(f"The PROXY header is longer than {_MAX_V2} bytes.")
    size = 16 + length
    if len(data) < size:
        return None
    # Else a health check of the proxy's own, or something other than a stream.
    if command == 1 and transport == 1 and family != 0:
        return ProxyHeader(size, _v2_source(family, bytes(data[16:size])))
    return ProxyHeader(size, None)


def _v2_source(family: int, block: bytes) -> tuple[str, int] | str:
    if len(block) < {_INET: 12, _INET6: 36, _UNIX: 216}[family]:
        raise ProxyError("The PROXY header is too short for its addresses.")
    if family == _UNIX:
        name = block[:108].rstrip(b"\0")
        return name.decode("utf-8", "backslashreplace")
    size = _IP_SIZES[family]
    port = int.from_bytes(block[2 * size : 2 * size + 2], "big")
    return str(_normalised(ip_address(block[:size]))), port
