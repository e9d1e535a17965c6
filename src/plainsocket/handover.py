"""Handing the http carrier's requests on to the node that holds their session.

docs/http-carrier.md says why, and which node an open belongs to.
One request goes over one connection of its own, a *link*, to its owner, and is answered there as
if it had come there. Both bodies stream; nobody reads faster than the other end takes. A request
that was handed on is never handed on again.
"""

from __future__ import annotations

import contextlib
import errno
import hmac
import json
import os
import random
import socket
import struct
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import gevent
from gevent import getcurrent
from gevent import socket as gsocket
from gevent.event import Event
from gevent.lock import BoundedSemaphore
from gevent.pool import Pool
from gevent.server import StreamServer

from .body import BodyCut, BodyError
from .handshake import Refused
from .listening import listen
from .nodes import MACHINE_SIZE, Gone, Name, Node, Nodes
from .opening import Host, hung_up, is_readable, logger, tune
from .timers import TimerWheel

if TYPE_CHECKING:
    from .carriers.posts import Open
    from .sessions import Sessions

HANDED_ON: Final = "plainsocket.handed_on"
"""The key in the environ of a request that another node has handed on."""

_PIECE: Final = 64 * 1024  # bytes
_MOST: Final = 256 * 1024  # bytes of a piece of a link, at most
_BUFFER: Final = 64 * 1024  # bytes that a link keeps on their way: what is there can't be overtaken
_MAC_SIZE: Final = 16
_NONCE_SIZE: Final = 16
_MOST_LINKS: Final = 4096  # from this machine, and as many from others
_MOST_UNPROVEN: Final = 256  # of those, that have not shown that they know the secret
_MOST_YIELDED: Final = 1024
_LENGTH: Final = struct.Struct("!I")
_COUNT: Final = struct.Struct("!cQ")

_ATTEMPTS: Final = 3  # to connect
_CONNECT_TIME: Final = 2.0  # seconds
_HEAD_TIME: Final = 5.0  # seconds
_ASK_TIME: Final = 1.0  # seconds
_LAST_TIME: Final = 5.0  # seconds for the rest of a request that was answered before its end
_LOOK_INTERVAL: Final = 1.0  # seconds
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 3), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3))  # seconds
_USER_TIMEOUT: Final = 10_000  # milliseconds

_ELSEWHERE: Final = "000 Elsewhere"
"""The status with which a node gives an open back; the one that it came to goes on with it."""


class LinkError(OSError):
    """The other end of a link is gone, or is no node."""


class _Elsewhere(Exception):
    """The node has given the open back."""


class Link:
    """A connection of two nodes. It carries pieces of bytes; an empty one ends a body.

    Between machines each piece has a proof that a node has sent it, on this connection and in this
    place.
    """

    def __init__(
        self, sock: Any, *, key: bytes | None, is_caller: bool, rest: bytes = b"", received: int = 0
    ) -> None:
        self.socket = sock
        self.key = key
        self._mine, self._others = (b"c", b"o") if is_caller else (b"o", b"c")
        self._sent = 0
        self._received = received
        self.rest = rest
        """Bytes that have come and were not used yet."""

    def send(self, data: bytes, *, before: bytes = b"") -> None:
        """Send one piece; `before` leaves with it. Raises OSError."""
        proof = self._proof(self._mine, self._sent, data)
        self._sent += 1
        self.socket.sendall(b"".join((before, _LENGTH.pack(len(data)), data, proof)))

    def receive(self) -> bytes:
        """The next piece. Raises OSError, of which TimeoutError is one."""
        (size,) = _LENGTH.unpack(self._read(_LENGTH.size))
        if size > _MOST:
            raise LinkError("a piece is too large")
        data = self._read(size)
        proof = self._proof(self._others, self._received, data)
        self._received += 1
        if proof and not hmac.compare_digest(self._read(len(proof)), proof):
            raise LinkError("a piece has no proof")
        return data

    def send_head(self, before: bytes = b"", **head: Any) -> None:
        self.send(json.dumps(head).encode(), before=before)

    def receive_head(self) -> dict[str, Any]:
        head: dict[str, Any] = json.loads(self.receive())
        return head

    def _proof(self, direction: bytes, number: int, data: bytes) -> bytes:
        if self.key is None:
            return b""
        return hmac.digest(self.key, _COUNT.pack(direction, number) + data, "sha256")[:_MAC_SIZE]

    def _read(self, size: int) -> bytes:
        if len(self.rest) >= size:
            data, self.rest = self.rest[:size], self.rest[size:]
            return data
        pieces = [self.rest]
        missing = size - len(self.rest)
        while missing > 0:
            data = self.socket.recv(max(missing, _PIECE))
            if not data:
                raise LinkError("the other node has ended the link")
            pieces.append(data)
            missing -= len(data)
        data = b"".join(pieces)
        self.rest = data[size:]
        return data[:size]

    @property
    def has_more(self) -> bool:
        """Whether something has come."""
        return bool(self.rest) or is_readable(self.socket)

    def cut(self) -> None:
        """End it; who waits for it goes on."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.socket.close()


class Handover:
    """One node's part in this."""

    def __init__(self, nodes: Nodes, sessions: Sessions) -> None:
        """Raises OSError where it can't take part."""
        self._sessions = sessions
        self.node: Final[Node] = nodes.join()
        self._claims: dict[bytes, _Claim] = {}
        self._yielded: OrderedDict[bytes, None] = OrderedDict()
        self._relays: set[_Relay] = set()
        self._unproven = BoundedSemaphore(_MOST_UNPROVEN)
        self._servers: list[StreamServer] = []
        try:
            self._start(self.node.listener, self._serve_unix)
            if self.node.address is not None:
                host, port = self.node.address
                self._start(listen(host=host, port=port, reuse_port=True), self._serve_tcp)
        except BaseException:
            self.close()
            raise

    def _start(self, listener: Any, serve: Callable[[Any, Any], None]) -> None:
        listener = gsocket.socket(
            listener.family, listener.type, listener.proto, fileno=listener.detach()
        )
        self._servers.append(StreamServer(listener, serve, spawn=Pool(_MOST_LINKS)))
        self._servers[-1].start()

    def new_token(self) -> bytes:
        """A session's token, by which all nodes know its owner."""
        return self.node.new_token()

    def stop(self) -> None:
        """End what is handed on from here; the pages ask anew, and come to another node."""
        for relay in list(self._relays):
            relay.link.cut()

    def close(self) -> None:
        """Take part no more."""
        self.stop()
        self.node.leave()
        for server in self._servers:
            server.stop(timeout=0)

    # -- requests that came here -----------------------------------------------------------------

    def stream(
        self,
        host: Host,
        environ: dict[str, Any],
        start_response: Any,
        token: bytes,
        data: bytes,
        read: Callable[[int], bytes],
    ) -> Iterable[bytes] | None:
        """Another node's answer to an up or a down request of which `data` has been read.

        None where no node has made the token, or this one has. Raises Refused.
        """
        owner = self.node.owner_of(token)
        if HANDED_ON in environ or owner is None or owner == self.node.name:
            return None
        try:
            return self._hand_on(owner, host, environ, start_response, data, read)
        except Gone:
            return None

    def open(
        self, host: Host, environ: dict[str, Any], start_response: Any, post: Open, data: bytes
    ) -> Iterable[bytes] | None:
        """Another node's answer to an open of which nothing is known here; None if it is this
        one's to answer. Raises Refused."""
        if HANDED_ON in environ:
            return self._open_handed_on(start_response, post.nonce)
        owner = self.node.owner_of(post.token)
        if owner == self.node.name and not self._sessions.is_stopping:
            return None  # and so is a repeat
        whole = (host, environ, start_response, data, _nothing_more)
        if owner not in (None, self.node.name):
            with contextlib.suppress(Gone, _Elsewhere):
                return self._hand_on(owner, *whole)
        owner = self._claim(post.nonce)
        if owner != self.node.name:
            try:
                return self._hand_on(owner, *whole)
            except Gone:
                return None
            except _Elsewhere:  # it has just given it to a third one
                raise _unavailable() from None
        if self._sessions.is_stopping:  # so that no attempt fails because of a restart
            for sibling in random.sample(siblings := self.node.siblings(), len(siblings)):
                with contextlib.suppress(Gone, _Elsewhere):
                    return self._hand_on(sibling, *whole)
        return None

    def _open_handed_on(self, start_response: Any, nonce: bytes) -> Iterable[bytes] | None:
        claim = self._claims.get(nonce)
        if claim is not None:
            claim.is_settled.wait()
        if not self._sessions.knows(nonce) and (
            nonce in self._yielded or self._sessions.is_stopping
        ):
            start_response(_ELSEWHERE, [])
            return ()
        return None

    def _hand_on(
        self,
        owner: Name,
        host: Host,
        environ: dict[str, Any],
        start_response: Any,
        data: bytes,
        read: Callable[[int], bytes],
    ) -> Iterable[bytes]:
        """Raises Gone, _Elsewhere, Refused and BodyError."""
        try:
            link = self._call(
                owner,
                environ={key: value for key, value in environ.items() if type(value) is str},
                client=host.client_name,
                comes_as_read=getattr(environ["wsgi.input"], "comes_as_read", False),
            )
        except Gone:
            raise
        except OSError as error:
            raise _unavailable() from error
        relay = _Relay(self._relays, link, host, self._sessions.reach)
        try:
            relay.send_body(data, read)
            head = relay.receive_head(may_last=read is _nothing_more)
            if head.get("gone"):
                raise Gone("the node is not there")
            if head["status"] == _ELSEWHERE:
                raise _Elsewhere
        except BaseException as error:
            relay.close()
            if isinstance(error, OSError) and not isinstance(error, (Gone, BodyError)):
                raise _unavailable() from error
            raise
        headers = [(name, value) for name, value in head["headers"]]
        relay.has_length = any(name.lower() == "content-length" for name, _ in headers)
        start_response(head["status"], headers)
        return relay

    # -- which node an open is for ---------------------------------------------------------------

    def _claim(self, nonce: bytes) -> Name:
        """Whose an open of this nonce is: that node's which has it already, or else this one's.

        A node that wants it notes that first, and then tells all others, who tell what they know.
        So of two that want it each hears of the other before it decides, unless the other has
        decided already; and all give it to the same one of them.
        """
        claim = self._claims.get(nonce)
        if claim is None:
            claim = self._claims[nonce] = _Claim(self.node.name)
            owner = self.node.name
            try:
                owner = claim.choose(self._ask(self.node.name, nonce))
            finally:
                del self._claims[nonce]
                if owner != self.node.name:
                    self._yielded[nonce] = None
                    if len(self._yielded) > _MOST_YIELDED:
                        self._yielded.popitem(last=False)
                claim.owner = owner
                claim.is_settled.set()
        claim.is_settled.wait()
        return claim.owner

    def _ask(self, asker: Name, nonce: bytes, *, machines: bool = True) -> list[tuple[Name, bool]]:
        """The other nodes that know the nonce, or (False) that want it, as `asker` does."""
        whom = self.node.siblings()
        if machines:
            whom += [Name(machine, b"") for machine in self.node.machines()]
        asked = [gevent.spawn(self._ask_one, name, asker, nonce) for name in whom]
        gevent.joinall(asked, timeout=_ASK_TIME if machines else _ASK_TIME / 2)
        gevent.killall(asked, block=False)
        return [answer for greenlet in asked for answer in greenlet.value or ()]

    def _ask_one(self, name: Name, asker: Name, nonce: bytes) -> list[tuple[Name, bool]]:
        try:
            link = self._call(name, ask=nonce.hex(), by=bytes(asker).hex())
        except OSError:  # it is gone, and its sessions with it; or it is cut off
            return []
        try:
            return [(_name(text), bool(known)) for text, known in link.receive_head()["nodes"]]
        except OSError:
            return []
        finally:
            link.close()

    def _tell(self, link: Link, asker: Name, nonce: bytes, *, of_machine: bool) -> None:
        """Answer to `_ask`."""
        nodes = []
        if self._sessions.knows(nonce):
            nodes.append((self.node.name, True))
        elif nonce in self._claims:
            self._claims[nonce].others.add(asker)
            nodes.append((self.node.name, False))
        if of_machine:
            nodes += self._ask(asker, nonce, machines=False)
        link.send_head(nodes=[(bytes(name).hex(), known) for name, known in nodes])

    # -- links -----------------------------------------------------------------------------------

    def _call(self, name: Name, **head: Any) -> Link:
        """Begin a link to a node, or to any node of a machine. Raises Gone and OSError."""
        head["to"] = name.process.hex()
        if name.machine != self.node.name.machine:
            return self._call_machine(self.node.address_of(name.machine), head)
        sock = gsocket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(_CONNECT_TIME)
            sock.connect(self.node.path_of(name.process))
            link = Link(sock, key=None, is_caller=True)
            link.send_head(_PLAIN, **head)
        except BaseException as error:
            sock.close()
            if isinstance(error, ConnectionRefusedError):
                self.node.forget(name.process)
            if isinstance(error, (ConnectionRefusedError, FileNotFoundError)):
                raise Gone("the node is not there") from None
            raise
        return link

    def _call_machine(self, address: tuple[str, int], head: dict[str, Any]) -> Link:
        sock, challenge = _connect_tcp(address)
        try:
            answer = os.urandom(_NONCE_SIZE)
            link = Link(sock, key=self._key(challenge + answer), is_caller=True)
            link.send_head(answer, **head)
        except BaseException:
            sock.close()
            raise
        return link

    def _key(self, nonces: bytes) -> bytes:
        return hmac.digest(self.node.secret, b"plainsocket link " + nonces, "sha256")

    # -- requests that are handed on to here -----------------------------------------------------

    def _serve_tcp(self, sock: Any, _address: Any) -> None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            with gevent.Timeout(_HEAD_TIME, TimeoutError()), self._unproven:
                _watch_over(sock)
                challenge = os.urandom(_NONCE_SIZE)
                sock.sendall(challenge)
                answer = _read_exactly(sock, _NONCE_SIZE)
                link = Link(sock, key=self._key(challenge + answer), is_caller=False)
                head = link.receive_head()
            process = bytes.fromhex(head["to"])
            if not process or process == self.node.name.process:
                self._answer(link, head, is_from_afar=True)
            else:
                self._pass_on(link, process, head)

    def _pass_on(self, link: Link, process: bytes, head: dict[str, Any]) -> None:
        """Give the connection itself to the node that it is for: no byte goes through this one."""
        assert link.key is not None
        passed: dict[str, Any] = {"key": link.key.hex(), "rest": link.rest.hex(), "head": head}
        try:
            with gsocket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(_CONNECT_TIME)
                sock.connect(self.node.path_of(process))
                fd = struct.pack("i", link.socket.fileno())
                sock.sendmsg([_PASSED], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fd)])
                Link(sock, key=None, is_caller=True).send_head(**passed)
        except (ConnectionRefusedError, FileNotFoundError):
            link.send_head(gone=True)
            _drain(link)

    def _serve_unix(self, sock: Any, _address: Any) -> None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            is_from_afar = False
            with gevent.Timeout(_HEAD_TIME, TimeoutError()):
                mark, ancillary, _, _ = sock.recvmsg(1, socket.CMSG_SPACE(struct.calcsize("i")))
                link = Link(sock, key=None, is_caller=False)
                head = link.receive_head()
                if mark == _PASSED:
                    is_from_afar = True
                    (fd,) = struct.unpack("i", ancillary[0][2][: struct.calcsize("i")])
                    link = Link(
                        gsocket.socket(fileno=fd),
                        key=bytes.fromhex(head["key"]),
                        is_caller=False,
                        rest=bytes.fromhex(head["rest"]),
                        received=1,
                    )
                    head = head["head"]
            if bytes.fromhex(head["to"]) != self.node.name.process:
                link.send_head(gone=True)
                _drain(link)
                return
            try:
                self._answer(link, head, is_from_afar=is_from_afar)
            finally:
                link.close()

    def _answer(self, link: Link, head: dict[str, Any], *, is_from_afar: bool) -> None:
        if "ask" in head:
            nonce = bytes.fromhex(head["ask"])
            self._tell(link, _name(head["by"]), nonce, of_machine=is_from_afar)
            return
        with contextlib.suppress(OSError):  # a Unix socket, too, keeps little on its way
            link.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        body = _Body(link, self._sessions.options.body_timeout, head["comes_as_read"])
        environ: dict[str, Any] = {
            **head["environ"],
            "wsgi.version": (1, 0),
            "wsgi.input": body,
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": False,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
            HANDED_ON: True,
        }
        host = _Caller(link, head["client"], environ, self._sessions)
        _run(lambda *arguments: self._sessions.respond(host, environ, *arguments), link)
        if not body.is_done:
            _drain(link)


class _Claim:
    """An open that this node wants, while it asks the others."""

    def __init__(self, own: Name) -> None:
        self._own = own
        self.others: set[Name] = set()
        """That have told that they want it."""
        self.owner = own
        self.is_settled = Event()

    def choose(self, answers: list[tuple[Name, bool]]) -> Name:
        """Who shall have it, after what the others have answered."""
        for name, is_known in answers:
            if is_known:
                return name
        return min({self._own, *self.others, *(name for name, _ in answers)})


class _Relay:
    """A request on its way through this node: a WSGI response."""

    def __init__(self, relays: set[_Relay], link: Link, host: Host, reach: float) -> None:
        self._relays = relays
        self.link = link
        self._host = host
        self._reach = reach  # seconds
        self._greenlet: Any = getcurrent()
        self._writes_since: float | None = None
        self._is_reading = False
        self.has_length = False
        self.timer_slot = self.timer_place = 0
        self._timers = TimerWheel.of_hub()
        self._timers.set(self, time.monotonic() + _LOOK_INTERVAL)
        relays.add(self)
        link.socket.settimeout(reach)

    def send_body(self, data: bytes, read: Callable[[int], bytes]) -> None:
        """Send `data` and what `read` gives, or so much of it as is wanted."""
        while data:
            for start in range(0, len(data), _PIECE):
                self.link.send(data[start : start + _PIECE])
            try:
                self._is_reading = True
                data = read(_PIECE)
            except BodyError:
                if not self.link.has_more:
                    raise
                return  # it is answered
            finally:
                self._is_reading = False
            if data and self.link.has_more:
                return
        self.link.send(b"")

    def receive_head(self, *, may_last: bool) -> dict[str, Any]:
        """`may_last`: an application may take its time."""
        self.link.socket.settimeout(None if may_last else self._reach)
        head = self.link.receive_head()
        self.link.socket.settimeout(self._reach)
        return head

    def __iter__(self) -> Iterator[bytes]:
        try:
            while data := self.link.receive():
                self._writes_since = time.monotonic()
                yield data
                self._writes_since = None
        except OSError as error:
            # A stream may end at any byte, and the page asks anew; the rest is cut.
            if self.has_length:
                raise BrokenPipeError(errno.EPIPE, "the node has gone") from error

    def close(self) -> None:
        self._timers.cancel(self)
        self._relays.discard(self)
        self.link.close()

    def on_timer(self, now: float) -> float:
        """In the hub: is the client still there, and does it take what is written? Is a request
        answered, or the node gone, before the end of its body?"""
        if self._is_reading:
            if self.link.has_more:
                self._greenlet.throw(BodyError(HTTPStatus.GONE, "The session is over."))
            return now + _LOOK_INTERVAL
        since = self._writes_since
        if since is not None and now - since >= self._reach:
            gevent.spawn(gevent.kill, self._greenlet, BrokenPipeError(errno.EPIPE, "not taken"))
        elif since is None and self._host.has_hung_up():
            self.link.cut()
        return now + _LOOK_INTERVAL


class _Body:
    """`wsgi.input` of a request that was handed on."""

    def __init__(self, link: Link, timeout: float, comes_as_read: bool) -> None:
        self._link = link
        self._timeout = timeout + _LAST_TIME  # the other node's deadline comes first
        self.comes_as_read = comes_as_read
        self._rest = b""
        self.is_done = False

    def read_some(self, size: int) -> bytes:
        if not self._rest and not self.is_done:
            self._link.socket.settimeout(self._timeout)
            try:
                self._rest = self._link.receive()
            except BodyError:
                raise  # its session is over
            except OSError as error:
                self.is_done = True
                raise BodyCut from error
            finally:
                self._link.socket.settimeout(None)
            self.is_done = not self._rest
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def read(self, size: int = -1) -> bytes:
        pieces = []
        while size and (data := self.read_some(size if size > 0 else _PIECE)):
            pieces.append(data)
            size -= len(data) if size > 0 else 0
        return b"".join(pieces)


class _Caller(Host):
    """The client of a request that was handed on."""

    def __init__(
        self, link: Link, client_name: str, environ: dict[str, Any], sessions: Sessions
    ) -> None:
        self._link = link
        self._client_name = client_name
        self.environ = environ
        self.options = sessions.options

    @property
    def client_name(self) -> str:
        return self._client_name

    def tune_socket(self) -> None:
        pass

    def has_hung_up(self) -> bool:
        return hung_up(self._link.socket)


_PLAIN: Final = b"\0"  # the first byte of a link: a request follows …
_PASSED: Final = b"\1"  # … or a connection, of which the request has been read


def _run(application: Callable[..., Iterable[bytes]], link: Link) -> None:
    """Answer by a WSGI application. Raises OSError."""
    has_answered = False

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        nonlocal has_answered
        has_answered = True
        link.send_head(status=status, headers=list(headers))
        return link.send

    try:
        result = application(start_response)
    except Exception:
        if has_answered:
            raise
        logger.exception("error in a request that was handed on")
        start_response("500 Internal Server Error", [("Content-Length", "0")])
        result = ()
    try:
        for data in result:
            for start in range(0, len(data), _PIECE):
                link.send(data[start : start + _PIECE])
        link.send(b"")
    finally:
        if hasattr(result, "close"):
            result.close()


def _name(text: str) -> Name:
    data = bytes.fromhex(text)
    return Name(data[:MACHINE_SIZE], data[MACHINE_SIZE:])


def _drain(link: Link) -> None:
    """Read what the other end still sends, or its kernel would drop what it has not read yet."""
    with contextlib.suppress(OSError), gevent.Timeout(_LAST_TIME, TimeoutError()):
        while link.receive():
            pass


def _watch_over(sock: Any) -> None:
    """Let a machine that is gone be found out by the kernel."""
    tune(sock)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (*_KEEPALIVE, ("TCP_USER_TIMEOUT", _USER_TIMEOUT)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _connect_tcp(address: tuple[str, int]) -> tuple[Any, bytes]:
    """A connection to a machine, and the challenge that came on it. Raises Gone and OSError."""
    attempts = _ATTEMPTS
    while True:
        attempts -= 1
        try:
            sock = gsocket.create_connection(address, _CONNECT_TIME)
        except ConnectionRefusedError:
            raise Gone("the machine has no node") from None
        try:
            _watch_over(sock)
            return sock, _read_exactly(sock, _NONCE_SIZE)
        except (ConnectionError, LinkError):  # it came into the queue of a process that ended
            sock.close()
            if not attempts:
                raise
        except BaseException:
            sock.close()
            raise


def _read_exactly(sock: Any, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise LinkError("the other node has ended the link")
        data += piece
    return data


def _nothing_more(_size: int) -> bytes:
    return b""


def _unavailable() -> Refused:
    return Refused(HTTPStatus.SERVICE_UNAVAILABLE, "The process of the session does not answer.")
