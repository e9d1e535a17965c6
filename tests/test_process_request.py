"""process_request and origins: who gets in, decided before the 101."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

import plainsocket
from plainsocket import Refused, Request
from rawclient import RawClient
from serving import serving


def users(ws: plainsocket.WebSocket) -> None:
    ws.send(str(ws.request.context.get("user")))


class Users(plainsocket.Endpoint):
    def on_open(self) -> None:
        users(self.ws)


ROUTES: dict[str, Any] = {"/handler": users, "/endpoint": Users}


def answer(hook: Any, path: str = "/handler", **headers: str) -> tuple[str, str]:
    """The head of the answer and, of a refusal, the body, or else the first message."""
    with serving(ROUTES, process_request=hook) as server, RawClient(server.port) as client:
        client.send(client.request(path, **headers))
        head = client.receive_head()
        if " 101 " in head:
            return head, client.receive_frame()[1].decode()
        return head, client.receive_rest().decode()


@pytest.mark.parametrize("path", ROUTES)
def test_authentication_by_a_cookie(path: str) -> None:
    def authenticate(request: Request) -> None:
        gevent.sleep(0.01)  # it may wait
        if request.cookies.get("session") != "secret":
            raise Refused(401, "Log in first.", [("WWW-Authenticate", "Cookie")])
        request.context["user"] = "alice"
        request.response_headers.append(("Set-Cookie", "seen=1; HttpOnly"))

    head, message = answer(authenticate, path, cookie="a=b; session=secret")
    assert "\r\nSet-Cookie: seen=1; HttpOnly" in head
    assert message == "alice"
    head, body = answer(authenticate, path, cookie="session=wrong")
    assert head.startswith("HTTP/1.1 401 Unauthorized\r\n")
    assert "\r\nWWW-Authenticate: Cookie" in head
    assert body == "Log in first."


def test_what_it_is_told() -> None:
    seen: list[Any] = []

    def look(request: Request) -> None:
        seen.append((request.method, request.path, request.query, request.remote_address))
        seen.append((request.headers["x-some"], request.environ["HTTP_X_SOME"]))

    answer(look, "/handler?a=%20b", x_some="thing")
    assert seen == [("GET", "/handler", "a=%20b", "127.0.0.1"), ("thing", "thing")]


def test_it_chooses_the_subprotocol() -> None:
    def choose(request: Request) -> None:
        request.subprotocol = "b"

    head, _ = answer(choose, sec_websocket_protocol="a, b")
    assert "\r\nSec-WebSocket-Protocol: b" in head


def test_it_may_not_choose_what_was_not_offered() -> None:
    def choose(request: Request) -> None:
        request.subprotocol = "c"

    head, _ = answer(choose, sec_websocket_protocol="a, b")
    assert head.startswith("HTTP/1.1 500 ")


def test_an_error_in_it_is_a_500() -> None:
    def fail(_request: Request) -> None:
        raise ValueError("trouble")

    assert answer(fail)[0].startswith("HTTP/1.1 500 ")


def test_it_cannot_split_the_response() -> None:
    def inject(request: Request) -> None:
        request.response_headers.append(("X-Name", "a\r\nInjected: b"))

    head, _ = answer(inject)
    assert head.startswith("HTTP/1.1 500 ")
    assert "Injected" not in head
    with pytest.raises(ValueError, match="header"):
        Refused(400, "", [("Bad Name", "x")])
    with pytest.raises(ValueError, match="799"):
        Refused(799)


def test_it_comes_after_the_other_checks() -> None:
    called: list[Request] = []
    head, _ = answer(called.append, origin="http://evil.example")
    assert head.startswith("HTTP/1.1 403 ")
    head, _ = answer(called.append, sec_websocket_key="bad")
    assert head.startswith("HTTP/1.1 400 ")
    assert called == []


@pytest.mark.parametrize(
    ("origins", "origin", "allowed"),
    [
        (["https://*.example.com"], "https://a.b.example.com", True),
        (["https://*.example.com"], "https://example.com", False),
        (["https://*.example.com"], "https://evil.com/.example.com", False),
        (["https://*.example.com"], "https://example.com.evil.com", False),
        (["http://localhost:*"], "http://localhost:5173", True),
        (["http://localhost:*"], "http://localhost", False),
        (["self"], "http://127.0.0.1:9999", True),
        (["self"], "http://other.example", False),
        (["self", "http://other.example"], "http://other.example", True),
        (lambda origin, request: origin.endswith(request.query), "http://a.example", False),
        (lambda origin, request: origin.endswith(request.query), "http://a.good", True),
        ("*", "null", True),
    ],
)
def test_origins(origins: Any, origin: str, allowed: bool) -> None:
    with serving(ROUTES, origins=origins) as server, RawClient(server.port) as client:
        client.send(client.request("/handler?good", origin=origin))
        assert client.receive_head().startswith("HTTP/1.1 101 " if allowed else "HTTP/1.1 403 ")
