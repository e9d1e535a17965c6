"""connect(): the same WebSocket, from Python."""

from __future__ import annotations

import platform
import ssl
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from urllib.parse import unquote_to_bytes, urljoin

import gevent

from . import urls
from .answer import Answer
from .dialing import closed_on_error, default_context, dial, dial_unix, secure
from .errors import HandshakeError, HandshakeRefused
from .handshake import Request
from .opening import take_over
from .options import Options
from .proxies import Proxy, from_environment, parse_proxy, tunnel
from .tls import adapt
from .upgrade import (
    Response,
    check_headers,
    check_response,
    check_subprotocols,
    new_key,
    request_head,
    request_headers,
)
from .urls import Target
from .websocket import WebSocket

USER_AGENT: Final = f"plainsocket Python/{platform.python_version()}"

OPTIONS: Final = frozenset(
    {
        "max_message_size",
        "max_fragments",
        "message_timeout",
        "read_limit",
        "batch_time",
        "ping_interval",
        "ping_timeout",
        "close_timeout",
        "write_limit",
        "send_timeout",
    }
)
"""The fields of Options that mean something to a client."""

_REDIRECTS: Final = (301, 302, 303, 307, 308)


def connect(
    url: str,
    *,
    subprotocols: Sequence[str] = (),
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    origin: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
    proxy: str | bool | None = True,
    proxy_ssl_context: ssl.SSLContext | None = None,
    max_redirects: int = 0,
    open_timeout: float | None = 10.0,
    **options: Any,
) -> WebSocket:
    """Open a WebSocket to a server (RFC 6455 section 4.1); return it once it is open.

    Other greenlets run while it waits. The `with` block closes it::

        with plainsocket.connect("ws://127.0.0.1:8087/echo") as ws:
            ws.send("Hello")
            print(ws.receive())

    `url` begins with `ws://` or `wss://`, or is `ws+unix:/path/to/socket:/request/path` (or
    `wss+unix:`). A name and password in it become an Authorization header.

    `subprotocols` are offered, the preferred one first; `ws.subprotocol` is the server's choice,
    None where it took none. `headers` are added to the request; those of the handshake itself
    can't be set. `origin` is sent as a page's would be; None sends none. The headers of the
    server's answer are in `ws.request.response_headers`.

    `ssl_context` is for `wss:`; the default one checks the certificate and its name.
    `server_hostname` is the name to ask for and check instead of the URL's.

    `proxy` is the URL of one: `http://`, `https://` (`proxy_ssl_context` is for that), or with
    the extra `plainsocket[socks]` `socks5h://`, `socks5://`, `socks4a://`, `socks4://`. True takes
    that of the environment, if it names one (`https_proxy` …, see `no_proxy` too); None takes none.

    `max_redirects`: how many redirects are followed; never one from `wss:` to `ws:` or to a Unix
    socket. `headers`, name and password go to the first origin only.

    `open_timeout` is the time for all of it, in seconds; None: no limit. The other `options` are
    fields of `Options`: `max_message_size`, `ping_interval` and those beside them.

    Raises ValueError and TypeError for arguments that mean nothing; and these, all OSErrors:
    TimeoutError after `open_timeout`; HandshakeRefused, with the status, headers and body of an
    answer other than 101; HandshakeError for an answer that is none; ProxyError where the proxy
    did not make the connection; ssl.SSLError for TLS that fails, SSLCertVerificationError for a
    bad certificate; and what the system says: ConnectionRefusedError, socket.gaierror …
    """
    unknown = set(options) - OPTIONS
    if unknown:
        raise TypeError(f"unknown option: {', '.join(sorted(unknown))}")
    check_subprotocols(subprotocols)
    if max_redirects < 0:
        raise ValueError(f"max_redirects must be 0 or more, not {max_redirects!r}")
    if open_timeout is not None and not open_timeout > 0:
        raise ValueError(f"open_timeout must be above 0 s, not {open_timeout!r}")
    opening = _Opening(
        urls.parse(url),
        options=Options(**options),
        subprotocols=list(subprotocols),
        headers=check_headers(headers.items() if isinstance(headers, Mapping) else headers),
        origin=origin,
        ssl_context=ssl_context,
        server_hostname=server_hostname,
        proxy=parse_proxy(proxy) if isinstance(proxy, str) else bool(proxy),
        proxy_ssl_context=proxy_ssl_context,
        timeout=open_timeout,
    )
    with gevent.Timeout(open_timeout) as timer:
        try:
            while True:
                try:
                    return opening.run()
                except HandshakeRefused as refused:
                    if refused.status not in _REDIRECTS or max_redirects == 0:
                        raise
                    max_redirects -= 1
                    opening.follow(refused)
        except gevent.Timeout as expired:
            if expired is not timer:
                raise
            if opening.refused is not None:  # what of its body has come will do
                raise opening.refused from None
            raise TimeoutError(
                f"no connection within {open_timeout} s, while {opening.stage}"
            ) from None


class _Opening:
    """One call of `connect`, over all redirects."""

    def __init__(
        self,
        target: Target,
        *,
        options: Options,
        subprotocols: list[str],
        headers: list[tuple[str, str]],
        origin: str | None,
        ssl_context: ssl.SSLContext | None,
        server_hostname: str | None,
        proxy: Proxy | bool,
        proxy_ssl_context: ssl.SSLContext | None,
        timeout: float | None,
    ) -> None:
        self._target = target
        self._options = options
        self._subprotocols = subprotocols
        self._headers = headers
        self._origin = origin
        self._server_hostname = server_hostname
        self._proxy = proxy
        self._proxy_ssl_context = proxy_ssl_context
        self._timeout = timeout
        self._ssl_context = None if ssl_context is None else adapt(ssl_context)
        if not target.is_secure and (ssl_context is not None or server_hostname is not None):
            raise ValueError("TLS is for wss: ssl_context and server_hostname are not for this URL")
        if target.unix is not None and isinstance(proxy, Proxy):
            raise ValueError("a Unix socket can't be reached through a proxy")
        self.stage = ""
        """What it is at, for who waits in vain."""
        self.refused: HandshakeRefused | None = None
        """The refusal whose body is being read."""

    def run(self) -> WebSocket:
        sock = self._reach()
        with closed_on_error(sock):
            return self._shake_hands(sock)

    def _reach(self) -> Any:
        """Return a connected socket, TLS where the URL wants it."""
        target = self._target
        proxy = from_environment(target) if self._proxy is True else self._proxy or None
        self.stage = f"connecting to {target.place}"
        if target.unix is not None:
            sock = dial_unix(target.unix)
        elif proxy is not None:
            self.stage += f" through the proxy {proxy.host}"
            if proxy.scheme == "https" and target.is_secure:
                raise ValueError("TLS to the server inside of TLS to the proxy is not supported")
            sock = tunnel(
                proxy,
                target,
                timeout=self._timeout or 60.0,
                context=self._proxy_ssl_context,
                agent=USER_AGENT,
            )
        else:
            sock = dial(target.host, target.port)
        if target.is_secure:
            self.stage = f"the TLS handshake with {target.place} went on"
            with closed_on_error(sock):
                context = self._ssl_context or default_context()
                return secure(sock, context, self._server_hostname or target.host)
        return sock

    def _shake_hands(self, sock: Any) -> WebSocket:
        target, key = self._target, new_key()
        sent = request_headers(
            target,
            key,
            headers=self._headers,
            subprotocols=self._subprotocols,
            origin=self._origin,
            user_agent=USER_AGENT,
        )
        self.stage = f"{target.place} was to answer the handshake"
        sock.sendall(request_head("GET", target.resource, sent))
        answer = Answer(sock)
        response = answer.read_head()
        if response.status != 101:
            raise self._refusal(response, answer)
        subprotocol = check_response(response, key, self._subprotocols, extensions=None)
        request = _request(target, sent, response, subprotocol)
        websocket = WebSocket(self._options, request, role="client")
        early = bytes(answer.rest)
        plain, more = take_over(sock, lambda: b"")
        websocket.start(plain, early + more)
        return websocket

    def _refusal(self, response: Response, answer: Answer) -> HandshakeRefused:
        refused = HandshakeRefused(response.status, response.reason, response.headers, b"")
        self.refused = refused
        try:
            answer.read_body(response)
        finally:
            refused.body = bytes(answer.body)
        self.refused = None
        return refused

    def follow(self, refused: HandshakeRefused) -> None:
        """Make what a redirect names the target. Raises HandshakeError where it may not be."""
        before = self._target
        places = [value for name, value in refused.headers if name.lower() == "location"]
        if len(places) != 1:
            raise refused
        base = ("https" if before.is_secure else "http") + f"://{before.authority}{before.resource}"
        try:
            after = urls.parse(urljoin(base, places[0].partition("#")[0]))
        except ValueError as error:
            raise HandshakeError(f"redirected to what is no URL: {error}") from refused
        if after.unix is not None:
            raise HandshakeError("redirected to a Unix socket") from refused
        if before.is_secure and not after.is_secure:
            raise HandshakeError("redirected from wss: to ws:") from refused
        if before.unix is not None and after.authority == before.authority:
            after = replace(before, resource=after.resource)
        if not after.has_origin_of(before):
            self._headers = []
            self._server_hostname = None
        elif after.user is None:
            after = replace(after, user=before.user)
        self._target = after


def _request(
    target: Target, sent: list[tuple[str, str]], response: Response, subprotocol: str | None
) -> Request:
    """What a server has as the request, so that `ws.path` and the like are there too."""
    path, _, query = target.resource.partition("?")
    environ = {
        "REQUEST_METHOD": "GET",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "wsgi.url_scheme": "https" if target.is_secure else "http",
    }
    headers: dict[str, str] = {}
    for name, value in sent:
        key = name.lower()
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    return Request(
        method="GET",
        version="HTTP/1.1",
        headers=headers,
        environ=environ,
        response_headers=response.headers,
        subprotocol=subprotocol,
    )
