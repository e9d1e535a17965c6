"""A client's way through a proxy: HTTP CONNECT, and SOCKS by the extra `plainsocket[socks]`."""

from __future__ import annotations

import contextlib
import os
import ssl
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import gevent
from gevent import socket

from .answer import Answer
from .dialing import closed_on_error, default_context, dial, secure
from .errors import HandshakeError, ProxyError
from .upgrade import basic, request_head
from .urls import Target, host_and_port

_SOCKS: Final = {"socks4": False, "socks4a": True, "socks5": False, "socks5h": True}  # who resolves
_PORTS: Final = {"http": 80, "https": 443} | dict.fromkeys(_SOCKS, 1080)

# The first of these variables that is set counts: what is meant for WebSockets goes first, then
# SOCKS, then HTTPS, whose proxies know CONNECT for sure (RFC 6455 section 4.1).
_VARIABLES: Final = {
    True: ("wss_proxy", "socks_proxy", "https_proxy", "all_proxy"),
    False: ("ws_proxy", "socks_proxy", "https_proxy", "http_proxy", "all_proxy"),
}


@dataclass(frozen=True)
class Proxy:
    """What a proxy's URL names."""

    scheme: str
    host: str
    port: int
    user: tuple[str, str] | None = field(default=None, repr=False)


def parse_proxy(url: str) -> Proxy:
    """Read a proxy's URL: `http:`, `https:`, `socks5h:`, `socks5:`, `socks4a:` or `socks4:`, by
    default `http:`. Raises ValueError.
    """
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in _PORTS:
        raise ValueError(f"a proxy's URL begins with one of {', '.join(_PORTS)}")
    if not parts.hostname:
        raise ValueError("the proxy's URL has no host")
    user = None
    if parts.username is not None:
        user = (unquote(parts.username), unquote(parts.password or ""))
    return Proxy(parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme], user)


# -- which one -----------------------------------------------------------------------------------


def from_environment(target: Target) -> Proxy | None:
    """The proxy that the environment names for `target`, or None.

    Looks at `wss_proxy` (for ws: `ws_proxy`), `socks_proxy`, `https_proxy`, for ws `http_proxy`
    too, and `all_proxy`, in lower or upper case; `no_proxy` lists hosts, domains, addresses and
    networks without one, or is `*`. Raises ValueError for a variable that is no proxy's URL.
    """
    if target.unix is not None or not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    if _is_exempt(target.host, target.port, _variable("no_proxy")):
        return None
    for name in _VARIABLES[target.is_secure]:
        url = _variable(name)
        if url:
            if name == "socks_proxy" and "://" not in url:
                url = f"socks5h://{url}"
            return parse_proxy(url)
    return None


def _variable(name: str) -> str:
    if name == "http_proxy" and "REQUEST_METHOD" in os.environ:
        # A CGI program: HTTP_PROXY may be the header Proxy of whoever sent the request.
        return os.environ.get(name, "")
    return os.environ.get(name) or os.environ.get(name.upper(), "")


def _is_exempt(host: str, port: int, no_proxy: str) -> bool:
    for entry in no_proxy.lower().replace(",", " ").split():
        if entry == "*":
            return True
        name, colon, number = entry.rpartition(":")
        if colon and number.isdigit() and (":" not in name or name.endswith("]")):
            if int(number) != port:
                continue
            entry = name
        entry = entry.strip("[]").removeprefix("*").removeprefix(".")
        if entry and (host == entry or host.endswith(f".{entry}")):
            return True
        with contextlib.suppress(ValueError):  # a name, and no address or network
            if ip_address(host) in ip_network(entry, strict=False):
                return True
    return False


# -- through it ----------------------------------------------------------------------------------


def tunnel(
    proxy: Proxy, target: Target, *, timeout: float, context: ssl.SSLContext | None, agent: str
) -> Any:
    """Return a socket that the proxy has connected to `target`.

    `context` is for a proxy by https. Raises ProxyError where the proxy does not make the
    connection, OSError where there is none to the proxy. `timeout`, in seconds, is what a thread
    may take that nobody waits for any more.
    """
    if proxy.scheme in _SOCKS:
        return _socks(proxy, target, timeout)
    try:
        sock = dial(proxy.host, proxy.port)
    except OSError as error:
        raise _named(error) from error
    with closed_on_error(sock):
        if proxy.scheme == "https":
            sock = secure(sock, context or default_context(), proxy.host)
    with closed_on_error(sock):
        _connect(sock, proxy, target, agent)
    return sock


def _named(error: OSError) -> OSError:
    if error.errno is None:
        return error
    return type(error)(error.errno, f"proxy: {error.strerror}")


def _connect(sock: Any, proxy: Proxy, target: Target, agent: str) -> None:
    """RFC 9110 section 9.3.6."""
    where = host_and_port(target.host, target.port)
    headers = [("Host", where), ("User-Agent", agent)]
    if proxy.user is not None:
        headers.append(("Proxy-Authorization", basic(proxy.user)))
    sock.sendall(request_head("CONNECT", where, headers))
    answer = Answer(sock)
    try:
        response = answer.read_head()
    except HandshakeError as error:
        raise ProxyError(f"proxy: {error}") from None
    if not 200 <= response.status < 300:
        text = f"the proxy refused with {response.status} {response.reason}".rstrip()
        raise ProxyError(text, response.status)
    if answer.rest:
        raise ProxyError("the proxy sent bytes before the connection through it was used")


def _socks(proxy: Proxy, target: Target, timeout: float) -> Any:
    """By python-socks, which blocks, in a thread of gevent's pool."""
    try:
        import python_socks
        from python_socks.sync import Proxy as SocksProxy
    except ImportError:
        raise ImportError(
            "a SOCKS proxy needs python-socks: pip install 'plainsocket[socks]'"
        ) from None
    kind = python_socks.ProxyType.SOCKS5 if "5" in proxy.scheme else python_socks.ProxyType.SOCKS4
    username, password = proxy.user or (None, None)
    socks = SocksProxy(kind, proxy.host, proxy.port, username, password, rdns=_SOCKS[proxy.scheme])

    def reach() -> Any:
        try:
            return socks.connect(target.host, target.port, timeout=timeout)
        except Exception as error:  # noqa: BLE001 - raised below; gevent's pool would print it
            return error

    connecting = gevent.get_hub().threadpool.spawn(reach)
    try:
        connected: Any = connecting.get()
    except BaseException:  # nobody waits any more: close what the thread still brings
        connecting.rawlink(_close_late)
        raise
    if isinstance(connected, python_socks.ProxyError):
        raise ProxyError(f"the proxy refused: {connected}") from connected
    if isinstance(connected, python_socks.ProxyTimeoutError):
        raise TimeoutError(f"proxy: {connected}") from connected
    if isinstance(connected, OSError):
        raise _named(connected) from connected
    if isinstance(connected, Exception):
        raise connected
    sock = socket.socket(connected.family, connected.type, connected.proto, connected.detach())
    sock.settimeout(None)
    return sock


def _close_late(connecting: Any) -> None:
    if not isinstance(connecting.value, Exception):
        connecting.value.close()
