"""WAMP version 1: procedure calls and published events over one WebSocket, in JSON arrays."""

from __future__ import annotations

import inspect
import json
import secrets
import sys
from collections.abc import Callable, Collection
from types import FunctionType
from typing import Any, ClassVar, Final

from ...frames import CloseCode
from ..exceptions import WebSocketError
from ..utils import get_version
from .base import BaseProtocol

__all__ = ["Channels", "Prefixes", "RemoteProcedures", "WampProtocol", "export_rpc"]

_GENERIC_ERROR: Final = "http://api.wamp.ws/error#generic"


def export_rpc(arg: Any = None) -> Any:
    """Decorator: the method can be called by the peer once its object is registered."""
    if isinstance(arg, FunctionType):
        arg._rpc = arg.__name__  # type: ignore[attr-defined]
    return arg


def serialize(data: Any) -> str:
    return json.dumps(data)


class Prefixes:
    """What the peer has declared: `calc:add` for `http://example.com/calc#add`."""

    def __init__(self) -> None:
        self.prefixes: dict[str, str] = {}

    def add(self, prefix: str, uri: str) -> None:
        self.prefixes[prefix] = uri

    def resolve(self, curie_or_uri: str) -> str:
        prefix, colon, rest = curie_or_uri.partition(":")
        if colon and prefix in self.prefixes:
            return self.prefixes[prefix] + rest
        return curie_or_uri


class RemoteProcedures:
    """What the peer may call, by URI."""

    def __init__(self) -> None:
        self.calls: dict[str, Callable[..., Any]] = {}

    def register_procedure(self, uri: str, proc: Callable[..., Any]) -> None:
        self.calls[uri] = proc

    def register_object(self, uri: str, obj: Any) -> None:
        """Register the methods of `obj` that are marked by `export_rpc`, as `uri` + name."""
        for _, method in inspect.getmembers(obj, inspect.ismethod):
            if hasattr(method, "_rpc"):
                self.calls[uri + method._rpc] = method

    def call(self, uri: str, args: Collection[Any]) -> Any:
        if uri not in self.calls:
            raise LookupError(f"no such procedure: {uri}")
        return self.calls[uri](*args)


class Channels:
    """The topics of a server, and who has subscribed to them."""

    def __init__(self) -> None:
        self.channels: dict[str, list[Any]] = {}
        self._prefixes: set[str] = set()

    def create(self, uri: str, prefix_matching: bool = False) -> None:
        """Offer a topic; with `prefix_matching` every topic whose URI begins so."""
        self.channels.setdefault(uri, [])
        if prefix_matching:
            self._prefixes.add(uri)

    def subscribe(self, uri: str, client: Any) -> None:
        """Does nothing for a topic that is not offered."""
        is_offered = uri in self.channels or any(map(uri.startswith, self._prefixes))
        if is_offered and client not in self.channels.setdefault(uri, []):
            self.channels[uri].append(client)

    def unsubscribe(self, uri: str, client: Any) -> None:
        if client in self.channels.get(uri, ()):
            self.channels[uri].remove(client)

    def forget(self, client: Any) -> None:
        """Take a client out of all topics."""
        for uri in self.channels:
            self.unsubscribe(uri, client)

    def publish(
        self,
        uri: str,
        event: Any,
        exclude: Collection[Any] | None = None,
        eligible: Collection[Any] | None = None,
    ) -> None:
        """Send an event to the subscribers, only to those of `eligible`, not those of `exclude`.

        Both are lists of session IDs.
        """
        message = serialize([WampProtocol.MSG_EVENT, uri, event])
        for client in list(self.channels.get(uri, ())):
            session_id = getattr(client, "session_id", None)
            if session_id in (exclude or ()) or (
                eligible is not None and session_id not in eligible
            ):
                continue
            try:
                client.ws.send(message)
            except WebSocketError:
                self.unsubscribe(uri, client)


class WampProtocol(BaseProtocol):
    """The application's `on_message` is given the answers to calls, to send them."""

    MSG_WELCOME: ClassVar = 0
    MSG_PREFIX: ClassVar = 1
    MSG_CALL: ClassVar = 2
    MSG_CALL_RESULT: ClassVar = 3
    MSG_CALL_ERROR: ClassVar = 4
    MSG_SUBSCRIBE: ClassVar = 5
    MSG_UNSUBSCRIBE: ClassVar = 6
    MSG_PUBLISH: ClassVar = 7
    MSG_EVENT: ClassVar = 8

    PROTOCOL_NAME = "wamp"

    def __init__(self, app: Any) -> None:
        self.procedures = RemoteProcedures()
        self.prefixes = Prefixes()
        self.session_id = secrets.token_hex(8)
        super().__init__(app)

    def register_procedure(self, uri: str, proc: Callable[..., Any]) -> None:
        self.procedures.register_procedure(uri, proc)

    def register_object(self, uri: str, obj: Any) -> None:
        self.procedures.register_object(uri, obj)

    def register_pubsub(self, uri: str, prefix_matching: bool = False) -> None:
        self._channels.create(uri, prefix_matching)

    @property
    def _channels(self) -> Channels:
        """Of the whole server."""
        if not hasattr(self.server, "channels"):
            self.server.channels = Channels()
        channels: Channels = self.server.channels
        return channels

    def on_open(self) -> None:
        self.app.on_open()
        self.do_handshake()

    def do_handshake(self) -> None:
        ident = f"gevent-websocket/{get_version()}"
        self.app.ws.send(serialize([self.MSG_WELCOME, self.session_id, 1, ident]))

    def on_message(self, message: Any) -> None:
        if message is None:  # the end
            return
        try:
            data = json.loads(message)
            self._check(data)
        except (ValueError, RecursionError):
            self.app.ws.close(CloseCode.PROTOCOL_ERROR, "not a message of WAMP 1")
            return
        if data[0] == self.MSG_PREFIX:
            self.prefixes.add(data[1], data[2])
        elif data[0] == self.MSG_CALL:
            self.rpc_call(data)
        else:
            self.pubsub_action(data)

    def _check(self, data: Any) -> None:
        """Raise ValueError for what a client may not send."""
        if not (isinstance(data, list) and data and isinstance(data[0], int)):
            raise ValueError("a message is a list that begins with its type")
        if len(data) < _LEAST_LENGTH.get(data[0], sys.maxsize):
            raise ValueError("unknown or incomplete message")
        texts = data[1:3] if data[0] in (self.MSG_PREFIX, self.MSG_CALL) else data[1:2]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("URIs and call IDs are strings")

    def on_close(self, reason: Any = None) -> None:
        try:
            client = self.handler.active_client
            if client is not None and hasattr(self.server, "channels"):
                self._channels.forget(client)
        finally:
            self.procedures = RemoteProcedures()  # those of the application hold it
            self.app.on_close(reason)

    def rpc_call(self, data: list[Any]) -> None:
        call_id, curie_or_uri, *args = data[1:]
        try:
            result = self.procedures.call(self.prefixes.resolve(curie_or_uri), args)
            answer = serialize([self.MSG_CALL_RESULT, call_id, result])
        except Exception as error:  # noqa: BLE001 - the caller is told
            answer = serialize([self.MSG_CALL_ERROR, call_id, *self._get_exception_info(error)])
        self.app.on_message(answer)

    def _get_exception_info(self, error: Exception) -> list[str]:
        """URI, description and details of a failed call, for the peer; subclasses may hide more."""
        return [_GENERIC_ERROR, str(type(error)), str(error)]

    def pubsub_action(self, data: list[Any]) -> None:
        action = data[0]
        uri = self.prefixes.resolve(data[1])
        client = self.handler.active_client
        client.session_id = self.session_id
        if action == self.MSG_SUBSCRIBE:
            self._channels.subscribe(uri, client)
        elif action == self.MSG_UNSUBSCRIBE:
            self._channels.unsubscribe(uri, client)
        else:
            event, exclude, eligible, *_ = [*data[2:5], None, None]
            if isinstance(exclude, bool):  # the short form: whether to leave out the publisher
                exclude = [self.session_id] if exclude else None
            self._channels.publish(uri, event, _session_ids(exclude), _session_ids(eligible))


def _session_ids(value: Any) -> list[Any] | None:
    return value if isinstance(value, list) else None


_LEAST_LENGTH: Final = {
    WampProtocol.MSG_PREFIX: 3,
    WampProtocol.MSG_CALL: 3,
    WampProtocol.MSG_SUBSCRIBE: 2,
    WampProtocol.MSG_UNSUBSCRIBE: 2,
    WampProtocol.MSG_PUBLISH: 3,
}
"""Of what a client sends: how many items its array has at least."""
