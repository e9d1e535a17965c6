"""FlashPolicyServer: which Flash programs may open sockets to which ports.

Flash Player asks before it opens a socket: it sends `<policy-file-request/>` and a NUL to port 843,
or to the port that the page names, and wants a policy in XML, a NUL behind it, and the end of the
connection. Any web page can bring a Flash program along, and a socket can send anything, also an
Origin of its choice: so a policy is an opening in a wall, and here it has to be spelled out.
"""

from __future__ import annotations

import contextlib
import errno
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable
from ipaddress import AddressValueError, IPv4Address
from typing import Any, Final

import gevent
from gevent.server import StreamServer
from gevent.socket import SHUT_RDWR
from gevent.socket import socket as gevent_socket

from .listening import listen
from .opening import address_name, logger

_REQUEST: Final = b"<policy-file-request/>\0"
_NAME: Final = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
)  # RFC 1123 section 2.1; others are written in their Punycode
_PORTS: Final = re.compile(r"([1-9][0-9]{0,4})(?:-([1-9][0-9]{0,4}))?")
_ORIGIN: Final = re.compile(r"[^:/]+://([^:/]+)(?::[0-9*]*)?/?")


class FlashPolicy:
    """Says who may connect: `FlashPolicy(["example.com:8087,9000", "*.example.org:8000-8010"])`.

    A rule is a domain, a colon, and ports. The domain is that of the Flash program, hence of the
    pages: a host name, an IPv4 address, `*.` and a name of at least two parts for all its
    subdomains, or `*` for all pages of the world. The ports are numbers and ranges with commas
    between; all ports at once can't be had by a star. Host names are not looked up.

    Raises ValueError for a rule that is anything else, and where there is none.
    """

    def __init__(self, rules: str | Iterable[str]) -> None:
        self.rules: Final = (rules,) if isinstance(rules, str) else tuple(rules)
        if not self.rules:
            raise ValueError("a Flash policy needs a rule, such as example.com:8087")
        elements = [
            f'<allow-access-from domain="{domain}" to-ports="{ports}"/>\n'
            for domain, ports in map(_parse_rule, self.rules)
        ]
        xml = f'<?xml version="1.0"?>\n<cross-domain-policy>\n{"".join(elements)}'
        self.answer: Final = f"{xml}</cross-domain-policy>\n\0".encode("ascii")
        """What Flash Player gets: XML, and a NUL."""

    @classmethod
    def for_origins(cls, origins: Any, port: int) -> FlashPolicy:
        """For the pages that `Options.origins` allows, and one port.

        Where those can't be told before a request comes, as with the default, it is for all pages.
        Raises ValueError for patterns that Flash has no word for.
        """
        if origins is None or isinstance(origins, str) or callable(origins) or "self" in origins:
            return cls(f"*:{port}")
        return cls([f"{_domain_of(pattern)}:{port}" for pattern in origins if pattern != "null"])

    @staticmethod
    def reads_request(read: Callable[[int], bytes]) -> bool:
        """Read a request, and nothing behind it; return False as soon as it is something else.

        `read(n)` returns from 1 to n bytes, b"" at the end.
        """
        data = b""
        while (decision := is_request(data)) is None:
            chunk = read(len(_REQUEST) - len(data))
            if not chunk:
                return False
            data += chunk
        return decision


def is_request(data: bytes) -> bool | None:
    """Whether `data` is Flash Player's request for a policy; None if more has to come."""
    if data.startswith(_REQUEST):
        return True
    return None if _REQUEST.startswith(data) else False


def _parse_rule(rule: str) -> tuple[str, str]:
    if not isinstance(rule, str):
        raise TypeError(f"a rule of a Flash policy is a str, not {rule!r}")
    domain, colon, ports = rule.lower().rpartition(":")
    if not colon:
        raise ValueError(f"{rule!r} names no ports: write it as example.com:8087,9000")
    if "/" in domain or ":" in domain:
        raise ValueError(
            f"{rule!r} must begin with a host name or an IPv4 address alone, as in "
            "example.com:8087,9000"
        )
    _check_domain(domain, rule)
    for each in ports.split(","):
        _check_ports(each, rule)
    return domain, ports


def _check_domain(domain: str, rule: str) -> None:
    if domain == "*":
        return
    name = domain.removeprefix("*.")
    if not _NAME.fullmatch(name):
        raise ValueError(f"{rule!r} does not begin with a host name, an IPv4 address or *")
    if name != domain and "." not in name:
        raise ValueError(f"{rule!r} would allow a whole top-level domain: name at least two parts")
    if name.rpartition(".")[2].isdigit():
        try:
            IPv4Address(domain)
        except AddressValueError as error:
            raise ValueError(f"{rule!r} does not begin with an IPv4 address: {error}") from error


def _check_ports(text: str, rule: str) -> None:
    if text == "*":
        raise ValueError(f"{rule!r} would open every port: name those that are meant")
    match = _PORTS.fullmatch(text)
    if match is None or not int(match[1]) <= int(match[2] or match[1]) <= 65535:
        raise ValueError(
            f"{rule!r}: {text!r} is neither a port from 1 to 65535 nor a range such as 8000-8010"
        )


def _domain_of(pattern: str) -> str:
    match = _ORIGIN.fullmatch(pattern)
    if match is None or "*" in match[1].removeprefix("*."):
        if match is not None and match[1] == "*":
            return "*"
        raise ValueError(
            f"no Flash policy can say {pattern!r}, which is in origins: say by "
            "flash_policy=FlashPolicy([…]) what is to be allowed"
        )
    return match[1]


# -- the server ----------------------------------------------------------------------------------


class FlashPolicyServer(StreamServer):
    """Answers Flash Player, and does nothing else.

    `listener` is a port, of all addresses; a tuple of host and port; or a listening socket. None is
    port 10843, as in gevent-socketio. `policy` is a `FlashPolicy`, or rules for one: see there.
    None: `serve`, given this server, allows its own port only; a server that stands alone allows
    that of `serve`'s default, 8087, only.

    A client has `timeout` seconds for its request and for taking the answer. At most
    `max_connections` wait; a further one takes the place of that which has waited longest.

    ::

        FlashPolicyServer(843, policy=["example.com:8087"]).serve_forever()

    Raises ValueError for a wrong rule. `start` raises OSError where the port can't be had.
    """

    backlog = 1024  # the kernel lowers it to its limit

    def __init__(
        self,
        listener: Any = None,
        backlog: int | None = None,
        *,
        policy: FlashPolicy | str | Iterable[str] | None = None,
        timeout: float = 5.0,
        max_connections: int = 1000,
    ) -> None:
        if policy is not None and not isinstance(policy, FlashPolicy):
            policy = FlashPolicy(policy)
        if timeout <= 0:
            raise ValueError(f"timeout must be above 0 s, not {timeout!r}")
        if max_connections < 1:
            raise ValueError(f"max_connections must be from 1 on, not {max_connections!r}")
        self.policy: FlashPolicy | None = policy
        self.timeout = timeout
        self.max_connections = max_connections
        self._waiting: OrderedDict[Any, None] = OrderedDict()  # sockets, the oldest first
        if listener is None:
            listener = 10843
        super().__init__(listener, backlog=backlog)

    def start(self) -> None:
        if self.policy is None:
            self.policy = FlashPolicy("*:8087")
        self.loop = gevent.get_hub().loop  # of this thread, wherever it was made
        super().start()
        logger.info(
            "Flash policy on %s: %s", address_name(self.address), ", ".join(self.policy.rules)
        )

    @classmethod
    def get_listener(cls, address: Any, backlog: int | None = None, family: Any = None) -> Any:
        host, port = address[:2]
        try:
            listener = listen(host=host, port=port, backlog=backlog or cls.backlog)
        except OSError as error:
            if error.errno != errno.EACCES:
                raise
            raise OSError(error.errno, _NO_RIGHT.format(port=port)) from error
        return gevent_socket(
            listener.family, listener.type, listener.proto, fileno=listener.detach()
        )

    def handle(self, sock: Any, address: Any) -> None:
        assert self.policy is not None
        if len(self._waiting) >= self.max_connections:
            oldest, _ = self._waiting.popitem(last=False)
            with contextlib.suppress(OSError):  # it is gone already
                oldest.shutdown(SHUT_RDWR)
        self._waiting[sock] = None
        expired = TimeoutError(f"nothing within {self.timeout} s")
        try:
            with gevent.Timeout(self.timeout, expired):
                if not self.policy.reads_request(sock.recv):
                    raise OSError("no request for a policy")
                sock.sendall(self.policy.answer)
        except OSError as error:
            logger.warning("%s: Flash policy not sent: %s", address_name(address), error)
        else:
            logger.info("%s: Flash policy sent", address_name(address))
        finally:
            self._waiting.pop(sock, None)


_NO_RIGHT: Final = (
    "port {port} may not be used: below 1024 a port takes a privilege. Give it the program (in a "
    "systemd unit AmbientCapabilities=CAP_NET_BIND_SERVICE), or do without the port: "
    "flash_policy=True has the WebSocket's own port answer, which plainsocket-flash.js asks first"
)


FlashOption = bool | int | FlashPolicy | FlashPolicyServer | None
"""What `flash_policy=` of a WebSocket server may be."""


def start_beside(
    wanted: object, *, address: Any, origins: Any
) -> tuple[FlashPolicy | None, FlashPolicyServer | None]:
    """Do what `flash_policy=` of a WebSocket server, a `FlashOption`, wants.

    Return what that server is to answer itself, and the server beside it, started. `address` is the
    WebSocket server's (host and port, or the path of a Unix socket), `origins` its option. Raises
    ValueError or TypeError for what can't be meant, and OSError where a port can't be had.
    """
    if wanted is None or wanted is False:
        return None, None
    if isinstance(wanted, FlashPolicy):
        return wanted, None
    server = None
    if isinstance(wanted, FlashPolicyServer):
        server = wanted
    elif wanted is not True:
        if not isinstance(wanted, int):
            kind = type(wanted).__name__
            raise TypeError(
                f"flash_policy is a port, True, a FlashPolicy or a FlashPolicyServer, not {kind}"
            )
        if not 0 <= wanted <= 65535:
            raise ValueError(f"flash_policy: {wanted!r} is no port")
        server = FlashPolicyServer((address[0] if isinstance(address, tuple) else "", wanted))
    if server is not None and server.policy is not None:
        policy = server.policy
    elif isinstance(address, tuple):
        policy = FlashPolicy.for_origins(origins, address[1])
    else:
        raise ValueError(
            "a Unix socket has no port to allow: say by flash_policy=FlashPolicy([…]), or "
            "FlashPolicyServer(843, policy=[…]), which one the pages connect to"
        )
    if server is not None:
        server.policy = policy
        server.start()
    return policy, server
