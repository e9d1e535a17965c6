"""The http carrier's requests, on any server: what opens sessions and carries their streams.

docs/http-carrier.md says what they are. Loaded when the first of them comes.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import io
import secrets
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import gevent
from gevent.event import AsyncResult
from gevent.pool import Pool

from .body import BodyCut, BodyError
from .carriers import posts
from .carriers.base import Receiver
from .carriers.http import Channel, Conflict, Response, Session
from .carriers.records import RecordError
from .handshake import PROBE, Accepted, Refused, Request, accept, check_origin
from .opening import Host, Opening, logger
from .options import Options
from .websocket import WebSocket

if TYPE_CHECKING:
    from .handover import Handover
    from .nodes import Nodes

Serve = Callable[["ChannelHost", Request], object]
"""Serves the WebSocket that a request asks for, as it would one of a socket of its own."""

_PIECE: Final = 64 * 1024  # bytes read in a row …
_LARGE_PIECE: Final = 256 * 1024  # … or, where none of them is waited for
_LARGEST: Final = (4 << 20) + 1024  # bytes of an up request
_MOST_UPLOADS: Final = 4
_MOST_RESPONSES: Final = 8
_MOST_NONCES: Final = 256  # that a session is remembered by
_HEARTBEAT: Final = 20.0  # seconds
_ANSWER_TIME: Final = 1.0  # seconds that a stream's answer may take, where there is no polling

_NO_STORE: Final = ("Cache-Control", "no-store, no-transform")
_STREAM_HEADERS: Final = [
    _NO_STORE,
    ("Content-Type", "application/octet-stream"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Accel-Buffering", "no"),
]
_USUAL: Final = (HTTPStatus.CONFLICT, HTTPStatus.GONE, HTTPStatus.TOO_MANY_REQUESTS)
_OF_THE_ANSWER: Final = {"connection", "content-length", "transfer-encoding", "upgrade"}


class Sessions:
    """The http carrier's sessions of one server."""

    def __init__(
        self,
        options: Options,
        serve: Serve,
        *,
        pool: Pool | None = None,
        add: Callable[[WebSocket], object] = lambda websocket: None,
        remove: Callable[[WebSocket], object] = lambda websocket: None,
        on_empty: Callable[[], object] = lambda: None,
        nodes: Nodes | None = None,
    ) -> None:
        """`serve` serves each WebSocket, and `pool` runs that. `add` and `remove` are told of
        WebSockets that open and end, `on_empty` that the last session has ended. `nodes` are the
        other processes, where the option has none."""
        self.options = options
        # What a WebSocket's own pings would find out, the session does for all its channels.
        self.options_of_channels = dataclasses.replace(options, ping_interval=None)
        self._serve = serve
        self._pool = pool
        self.add = add
        self.remove = remove
        self._on_empty = on_empty
        self._sessions: dict[bytes, Session] = {}
        self._opens: dict[bytes, _Open] = {}  # by nonce
        self._places: Counter[str] = Counter()  # of sessions, by client address
        self._places_taken = 0
        self.is_stopping = False
        self._largest = min(_LARGEST, options.max_body_size)
        self.heartbeat = min(options.ping_interval or _HEARTBEAT, _HEARTBEAT)
        self.reach = self.heartbeat + options.ping_timeout
        self._handover = self._take_part(options.nodes or nodes)

    def _take_part(self, nodes: Nodes | None) -> Handover | None:
        if nodes is None:
            return None
        from .handover import Handover  # only where there are several processes

        try:
            return Handover(nodes, self)
        except OSError as error:
            logger.error("requests of other processes' sessions get 410: %s", error)
            return None

    def __len__(self) -> int:
        return len(self._sessions)

    def stop(self) -> None:
        """Take no more channels; a session ends when it has none."""
        self.is_stopping = True
        if self._handover is not None:
            self._handover.stop()
        for session in list(self._sessions.values()):
            session.stop()
        if not self._sessions:
            self._on_empty()

    def close(self) -> None:
        """Be found by other processes no more."""
        if self._handover is not None:
            self._handover.close()
            self._handover = None

    def knows(self, nonce: bytes) -> bool:
        """Whether an open with this nonce has come."""
        return nonce in self._opens

    def respond(self, host: Host, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer a request of the carrier, as a WSGI application does."""
        is_usual = False
        try:
            return self._respond(host, environ, start_response)
        except Refused as error:
            refusal = error
        except Conflict as error:
            refusal = Refused(HTTPStatus.CONFLICT, str(error))
        except (posts.PostError, RecordError) as error:
            refusal = Refused(HTTPStatus.BAD_REQUEST, f"Not a request of the http carrier: {error}")
        except BodyError as error:
            refusal = Refused(error.status, error.reason)
            is_usual = isinstance(error, BodyCut)  # pages and proxies go as they like
        is_usual = is_usual or refusal.status in _USUAL
        return self._refuse(host, environ, start_response, refusal, is_usual)

    def _respond(self, host: Host, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        version = posts.version_of(environ["CONTENT_TYPE"])
        if version != posts.VERSION:
            raise Refused(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                f"This server speaks version {posts.VERSION} of the http carrier's protocol.",
            )
        if int(environ.get("CONTENT_LENGTH") or 0) > self._largest:
            raise _too_large()
        read = _reader(environ["wsgi.input"])
        data = read(_PIECE)
        kind = data[:1]
        if kind == bytes((posts.UP,)):
            return self._up(host, environ, start_response, data, read)
        while more := read(_PIECE):
            data += more
            if len(data) > posts.MAX_OPEN:
                raise _too_large()
        host.tune_socket()
        if kind == bytes((posts.DOWN,)):
            return self._down(host, environ, start_response, data)
        if kind == bytes((posts.OPEN,)):
            return self._open(host, environ, start_response, data)
        raise posts.PostError("it is none of the three kinds")

    # -- the streams -----------------------------------------------------------------------------

    def _up(
        self,
        host: Host,
        environ: dict[str, Any],
        start_response: Any,
        data: bytes,
        read: Callable[[int], bytes],
    ) -> Iterable[bytes]:
        while (post := posts.read_up(data)) is None:
            more = read(_PIECE)
            if not more:
                raise posts.PostError("an up request is longer")
            data += more
        session = self._find(environ, post.token)
        if session is None:
            return self._elsewhere(host, environ, start_response, post.token, data, read)
        if session.uploads >= _MOST_UPLOADS:
            raise Refused(HTTPStatus.TOO_MANY_REQUESTS, "There are as many up requests already.")
        lasts = "CONTENT_LENGTH" not in environ
        piece = _LARGE_PIECE if hasattr(environ["wsgi.input"], "read_some") else _PIECE
        session.uploads += 1
        if lasts:
            session.lasting.add(gevent.getcurrent())
        try:
            session.acknowledge(post.received)
            if lasts:  # the first bytes too: so the page knows that they come as it sends them
                session.tell_received()
            offset, data, size = post.offset, post.data, 0
            while data or (data := read(piece)):
                size += len(data)
                if size > self._largest:
                    raise _too_large()
                if offset > session.received:
                    session.wait_for(offset)
                session.receive(offset, data)
                offset += len(data)
                data = b""
                if lasts:
                    session.tell_received()
                else:
                    gevent.sleep(0)  # what there is is used, and replied to, before more is read
        finally:
            session.uploads -= 1
            session.lasting.discard(gevent.getcurrent())
        headers = _cors(environ, session.origin)
        start_response("204 No Content", [*headers, _NO_STORE, ("Plainsocket", session.tell())])
        return ()

    def find_usual(self, body: bytes, origin: str | None) -> tuple[Session, posts.Up] | None:
        """The session of an up request that has one whole record, of a message's bytes, and
        nothing to be refused for; None for any other."""
        if self.is_stopping or body[0] != posts.UP:
            return None
        try:
            post = posts.read_up(body)
        except posts.PostError:
            return None
        session = self._sessions.get(post.token) if post is not None else None
        if post is None or session is None or session.origin != origin:
            return None
        is_usual = session.uploads < _MOST_UPLOADS and session.is_next(post)
        return (session, post) if is_usual else None

    def take_usual(self, session: Session, post: posts.Up) -> str:
        """Take what `find_usual` has found; returns what the answer tells of it."""
        session.uploads += 1
        try:
            session.acknowledge(post.received)
            session.receive(post.offset, post.data)
            gevent.sleep(0)  # it is used, and replied to, before that
        finally:
            session.uploads -= 1
        return session.tell()

    def head_of_up(self, environ: dict[str, Any]) -> bytes:
        """The head of the answer to an up request, without what changes and without its end."""
        headers = [*_cors(environ, environ.get("HTTP_ORIGIN")), _NO_STORE]
        lines = ["HTTP/1.1 204 No Content", *(f"{name}: {value}" for name, value in headers), ""]
        return "\r\n".join(lines).encode("latin-1")

    def _down(
        self, host: Host, environ: dict[str, Any], start_response: Any, data: bytes
    ) -> Iterable[bytes]:
        post = posts.read_down(data)
        session = self._find(environ, post.token)
        if session is None:
            return self._elsewhere(host, environ, start_response, post.token, data)
        if self._is_refused(post):
            raise _no_polling()
        if session.responses >= _MOST_RESPONSES:
            raise Refused(HTTPStatus.TOO_MANY_REQUESTS, "There are as many responses already.")
        # An acknowledgement may have overtaken this request: then the page has come further.
        offset = max(post.offset, session.outbox.acknowledged)
        response = Response(
            session,
            posts.stream_from(offset),
            offset,
            is_poll=post.is_poll,
            seconds=post.seconds,
            has_hung_up=host.has_hung_up,
        )
        session.attach(response, post.number)
        return self._answer(environ, start_response, session, response)

    def _answer(
        self,
        environ: dict[str, Any],
        start_response: Any,
        session: Session,
        response: Response,
        more_headers: Iterable[tuple[str, str]] = (),
    ) -> Iterable[bytes]:
        headers = [*_cors(environ, session.origin), *_STREAM_HEADERS, *more_headers]
        if not response.is_poll:
            start_response("200 OK", headers)
            return response
        try:
            body = response.gather()
        finally:
            response.close()
        start_response("200 OK", [*headers, ("Content-Length", str(len(body)))])
        return [body]

    def _elsewhere(
        self,
        host: Host,
        environ: dict[str, Any],
        start_response: Any,
        token: bytes,
        data: bytes,
        read: Callable[[int], bytes] = lambda size: b"",
    ) -> Iterable[bytes]:
        """Another node's answer to a request of which `data` has been read; here is no such
        session."""
        check_origin(Request.from_environ(environ), self.options)
        answer = None
        if self._handover is not None:
            answer = self._handover.stream(host, environ, start_response, token, data, read)
        if answer is None:
            raise Refused(HTTPStatus.GONE, "There is no such session.")
        return answer

    def _find(self, environ: dict[str, Any], token: bytes) -> Session | None:
        session = self._sessions.get(token)
        if session is None or session.origin != environ.get("HTTP_ORIGIN"):
            return None
        return session

    # -- opening ---------------------------------------------------------------------------------

    def _open(
        self, host: Host, environ: dict[str, Any], start_response: Any, data: bytes
    ) -> Iterable[bytes]:
        post = posts.read_open(data)
        origin = environ.get("HTTP_ORIGIN")
        if post.subprotocols == PROBE:  # a page asks whether HTTP gets through
            check_origin(Request.from_environ(environ), self.options)
            headers = [*_cors(environ, origin), _NO_STORE, ("Plainsocket", "0 0")]
            start_response("204 No Content", headers)
            return ()
        if self._handover is not None and not self.knows(post.nonce):
            elsewhere = self._handover.open(host, environ, start_response, post, data)
            if elsewhere is not None:
                return elsewhere
        opening = self._opens.get(post.nonce)
        if opening is None:
            if self._is_refused(post):
                raise _no_polling()
            opening = self._begin(host, environ, post)
        elif (opening.origin, opening.number) != (origin, post.channel):
            raise Conflict("The nonce has been used.")
        answer = opening.answer.get()
        if answer is not None:
            start_response(answer.status, [*answer.headers, *_cors(environ, origin)])
            return answer.body
        session = opening.session
        assert session is not None
        headers = [pair for pair in opening.headers if pair[0].lower() not in _OF_THE_ANSWER]
        if opening.has_joined:
            headers += [*_cors(environ, origin), _NO_STORE, ("Plainsocket", session.tell())]
            start_response("204 No Content", headers)
            return ()
        if self._is_refused(post):
            gevent.sleep(_ANSWER_TIME)  # the same open's stream is on its way, if it is not held
            raise _no_polling()
        comes_as_read = getattr(environ["wsgi.input"], "comes_as_read", False)
        flags = posts.READS_AS_IT_COMES if comes_as_read else 0
        preface = posts.new_session(
            session.token, session.heartbeat, session.reach, self._largest, flags
        )
        response = Response(
            session,
            preface,
            0,
            is_poll=post.is_poll,
            seconds=post.seconds,
            has_hung_up=host.has_hung_up,
        )
        try:
            session.attach(response, 0)
        except Conflict:
            raise Refused(HTTPStatus.GONE, "The session has gone on since.") from None
        return self._answer(environ, start_response, session, response, headers)

    def _is_refused(self, post: posts.Open | posts.Down) -> bool:
        """Whether it asks for long polling, which is switched off."""
        return post.is_poll and post.seconds > 0 and not self.options.http_polling

    def _begin(self, host: Host, environ: dict[str, Any], post: posts.Open) -> _Open:
        """Serve the WebSocket in a greenlet of its own, as it outlives this request."""
        if self.is_stopping:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "The server is stopping.")
        if self._pool is not None and self._pool.full():
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "There are too many connections.")
        opening = _Open(self, host.client_name, _as_websocket(environ, post), post)
        session = self._find(environ, post.token)
        if session is not None and session.has_room:
            session.reserve(post.channel)
            opening.join(session)
        else:
            opening.address = environ.get("REMOTE_ADDR") or ""
            self._take_place(opening.address)
        self._opens[post.nonce] = opening
        spawn = gevent.spawn if self._pool is None else self._pool.spawn
        spawn(opening.run, self._serve)
        return opening

    def _take_place(self, address: str) -> None:
        """Count a session from its open on: else those that wait could pass the limits.

        Raises Refused.
        """
        if self._places_taken >= self.options.http_sessions:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "There are too many sessions.")
        limit = self.options.http_sessions_per_address
        if limit is not None and address and self._places[address] >= limit:
            raise Refused(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"There are {limit} sessions of your address already.",
            )
        self._places_taken += 1
        self._places[address] += 1

    def give_back_place(self, address: str) -> None:
        self._places_taken -= 1
        self._places[address] -= 1
        if not self._places[address]:
            del self._places[address]

    def create(self, origin: str | None, address: str) -> Session:
        """Make a session, for which a place has been taken."""
        options = self.options
        token = secrets.token_bytes(24) if self._handover is None else self._handover.new_token()
        session = Session(
            token,
            origin,
            window=options.http_window,
            max_channels=options.http_channels,
            heartbeat=self.heartbeat,
            reach=self.reach,
            send_timeout=options.send_timeout,
            on_end=functools.partial(self._forget, address),
        )
        self._sessions[session.token] = session
        return session

    def remember(self, nonce: bytes, session: Session) -> None:
        """The nonce belongs to an open that was good: a repeat is answered the same."""
        session.nonces.append(nonce)
        if len(session.nonces) > _MOST_NONCES:
            self._opens.pop(session.nonces.popleft(), None)

    def forget_open(self, nonce: bytes) -> None:
        """The open was refused."""
        self._opens.pop(nonce, None)

    def _forget(self, address: str, session: Session) -> None:
        del self._sessions[session.token]
        self.give_back_place(address)
        for nonce in session.nonces:
            self._opens.pop(nonce, None)
        for upload in session.lasting:
            gevent.get_hub().loop.run_callback(_end_upload, session, upload)
        if not self._sessions:
            self._on_empty()

    # -- answers ---------------------------------------------------------------------------------

    def _refuse(
        self,
        host: Host,
        environ: dict[str, Any],
        start_response: Any,
        refused: Refused,
        is_usual: bool,
    ) -> Iterable[bytes]:
        request = Request.from_environ(environ)
        host.report_refusal(request, refused, is_usual=is_usual)
        headers = [pair for pair in refused.headers if pair[0].lower() not in _OF_THE_ANSWER]
        if refused.status != HTTPStatus.FORBIDDEN:  # then the Origin is an allowed one
            headers += _cors(environ, environ.get("HTTP_ORIGIN"))
        body = refused.body.encode()
        headers += [_NO_STORE, ("Content-Length", str(len(body)))]
        if not any(name.lower() == "content-type" for name, _ in headers):
            headers.append(("Content-Type", "text/plain; charset=utf-8"))
        start_response(refused.status_line, headers)
        return [body]


class _Answer:
    """What an application answers by itself, instead of a WebSocket."""

    def __init__(self, status: str, headers: list[tuple[str, str]], body: Iterable[bytes]) -> None:
        self.status = status
        self.headers = headers
        self.body = body


class _Open:
    """One open request, until its WebSocket has ended."""

    def __init__(
        self, sessions: Sessions, client_name: str, request: Request, post: posts.Open
    ) -> None:
        self._sessions = sessions
        self._client_name = client_name
        self._request: Request | None = request
        self._post = post
        self.origin = request.headers.get("origin")
        self.number = post.channel
        self.session: Session | None = None
        self.has_joined = self._is_joining = False
        self.address: str | None = None
        """Whose place has been taken for a session that is not there yet."""
        self.headers = request.response_headers
        self.answer: AsyncResult[_Answer | None] = AsyncResult()
        """None where the WebSocket is open."""

    def run(self, serve: Serve) -> None:
        """Let `serve` serve the WebSocket, and the answer be what that makes of it."""
        request, self._request = self._request, None
        assert request is not None
        host = ChannelHost(self, self._sessions, self._client_name, request.environ)
        try:
            serve(host, request)
        except BaseException as error:
            if self.answer.ready():
                raise
            self._fail()
            if isinstance(error, Exception):
                self.answer.set_exception(error, sys.exc_info())
                return
            unavailable = Refused(HTTPStatus.SERVICE_UNAVAILABLE, "The server is stopping.")
            self.answer.set_exception(unavailable)
            raise
        finally:
            host.settle()
            self._settle()

    def join(self, session: Session) -> None:
        """Let it be a channel of a session that is there."""
        self.session = session
        self.has_joined = self._is_joining = True
        session.joining += 1

    def new_carrier(self, receiver: Receiver) -> Channel:
        if self.session is None:
            address, self.address = self.address, None
            assert address is not None
            self.session = self._sessions.create(self.origin, address)
            self.session.reserve(self.number)
        self._settle()
        if not self.session.has_room:  # it had, when this began
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "The session has too many WebSockets.")
        return Channel(self.session, self.number, self._post.credit, receiver)

    def succeed(self) -> None:
        assert self.session is not None
        self._sessions.remember(self._post.nonce, self.session)
        self._post = self._post._replace(token=b"", subprotocols="", extensions="")  # may be large
        self.answer.set(None)

    def give(self, answer: _Answer) -> None:
        self._fail()
        self.answer.set(answer)

    def _settle(self) -> None:
        """It waits for its WebSocket no more."""
        if self.address is not None:
            self._sessions.give_back_place(self.address)
            self.address = None
        if self._is_joining:
            self._is_joining = False
            assert self.session is not None
            self.session.joining -= 1

    def _fail(self) -> None:
        self._sessions.forget_open(self._post.nonce)
        if self.session is not None and not self.has_joined:
            self.session.lose()


class ChannelHost(Host):
    """Serves the WebSocket of one channel."""

    def __init__(
        self, opening: _Open, sessions: Sessions, client_name: str, environ: dict[str, Any]
    ) -> None:
        self._opening: _Open | None = opening
        self._sessions = sessions
        self._client_name = client_name
        self._channel: Channel | None = None
        self.release: Callable[[], object] | None = None
        """Called once: when it is open, or will not be."""
        self.environ = environ
        self.options = sessions.options_of_channels

    @property
    def client_name(self) -> str:
        return self._client_name

    def new_websocket(self, request: Request) -> WebSocket:
        return WebSocket(self.options, request, carrier=self._new_carrier)

    def _new_carrier(self, receiver: Receiver) -> Channel:
        assert self._opening is not None
        self._channel = self._opening.new_carrier(receiver)
        return self._channel

    def open_websocket(self, websocket: WebSocket, accepted: Accepted) -> None:
        assert self._opening is not None
        assert self._channel is not None
        self._channel.subprotocol = websocket.request.subprotocol
        websocket.start(None)
        self._opening.succeed()
        self._opening = self._channel = None
        self._sessions.add(websocket)
        self.settle()
        self.observe_opening(websocket)

    def settle(self) -> None:
        """It is open, or will not be."""
        release, self.release = self.release, None
        if release is not None:
            release()

    def end_websocket(self, websocket: WebSocket, code: int, reason: str) -> None:
        try:
            super().end_websocket(websocket, code, reason)
        finally:
            self._sessions.remove(websocket)

    def serve_application(self, application: Any, request: Request) -> None:
        """Serve it by a WSGI application, which may answer by itself instead."""
        answer = _Answer("", [], ())
        written: list[bytes] = []

        def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
            if exc_info is not None and answer.status:
                raise exc_info[1].with_traceback(exc_info[2])
            answer.status, answer.headers = status, list(headers)
            return written.append

        opening = self._opening
        assert opening is not None
        accepted = accept(request, self.options)
        answer.body = Opening(self, application, request, accepted)(request.environ, start_response)
        if written:
            answer.body = [*written, *answer.body]
        if answer.status:
            opening.give(answer)


def _end_upload(session: Session, upload: Any) -> None:
    """In the hub: end a request that lasts, for its session is over."""
    if upload in session.lasting:
        upload.throw(BodyError(HTTPStatus.GONE, "The session is over."))


def serve_by(application: Any) -> Serve:
    """Serves WebSockets by a WSGI application."""
    return functools.partial(_serve_application, application)


def _serve_application(application: Any, host: ChannelHost, request: Request) -> None:
    host.serve_application(application, request)


def _as_websocket(environ_of_post: dict[str, Any], post: posts.Open) -> Request:
    """The request for a WebSocket that an open request stands for."""
    environ = {
        key: value
        for key, value in environ_of_post.items()
        if not key.startswith(("CONTENT_", "HTTP_CONTENT_", "gunicorn.sock"))
    }
    for name in ("HTTP_TRANSFER_ENCODING", "HTTP_EXPECT", "wsgi.file_wrapper"):
        environ.pop(name, None)
    environ |= {
        "REQUEST_METHOD": "GET",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_UPGRADE": "websocket",
        "HTTP_CONNECTION": "Upgrade",
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
        "HTTP_SEC_WEBSOCKET_KEY": base64.b64encode(post.nonce).decode(),
        "wsgi.input": io.BytesIO(),
    }
    if post.subprotocols:
        environ["HTTP_SEC_WEBSOCKET_PROTOCOL"] = post.subprotocols
    return Request.from_environ(environ)


def _reader(body: Any) -> Callable[[int], bytes]:
    """What reads some of a request's body: of plainsocket's own, what has come."""
    read: Callable[[int], bytes] = getattr(body, "read_some", body.read)
    return read


def _cors(environ: dict[str, Any], origin: str | None) -> list[tuple[str, str]]:
    """What lets a page of another origin read the answer; `origin` is an allowed one."""
    if origin is None or origin == f"{environ['wsgi.url_scheme']}://{environ.get('HTTP_HOST')}":
        return []
    return [
        ("Access-Control-Allow-Origin", origin),
        ("Access-Control-Allow-Credentials", "true"),
        ("Access-Control-Expose-Headers", "Plainsocket"),
        ("Vary", "Origin"),
    ]


def _no_polling() -> Refused:
    return Refused(HTTPStatus.FORBIDDEN, "Long polling is switched off (http_polling=False).")


def _too_large() -> Refused:
    return Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large.")
