"""reconnecting(): one connection after another, with waits between them that spare the server."""

from __future__ import annotations

import logging
import random
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import gevent

from . import urls
from .client import connect
from .errors import HandshakeError, HandshakeRefused, ProxyError
from .websocket import WebSocket

logger: Final = logging.getLogger("plainsocket")

LONGEST_RETRY_AFTER: Final = 3600.0
"""Seconds: of what a server asks for by Retry-After no more is waited."""

_WORTH_ANOTHER_TRY: Final = (408, 425, 429)  # statuses below 500 that a later try may not meet


def is_final(error: OSError) -> bool:
    """Whether another try would end as this one did.

    So it is with a refusal by another status than 408, 425, 429 and 5xx, a redirect that was not
    followed, an answer that is no WebSocket's, and a bad certificate; not with what the network,
    a name server or a proxy does.
    """
    if isinstance(error, (HandshakeRefused, ProxyError)):
        status = error.status
        return status is not None and status < 500 and status not in _WORTH_ANOTHER_TRY
    return isinstance(error, (HandshakeError, ssl.SSLCertVerificationError))


class reconnecting:
    """Iterate over connections to `url`: the next one is opened when the one before is over::

        for ws in plainsocket.reconnecting("wss://example.org/feed"):
            with ws:
                for message in ws:
                    print(message)

    `options` are those of `connect`. A connection that is still open when the next one is asked
    for is closed first.

    Between two tries it waits a random time (full jitter) from 0 to `min_delay` seconds, a limit
    that doubles with each try up to `max_delay`; it starts afresh after a connection that lived
    for `stable_after` seconds. If a refusal has a Retry-After, it waits that long, but at most an
    hour, and the random time besides.

    An error that another try would meet again is raised, as `connect` raises it: see `is_final`,
    which the argument of that name replaces. So is the last error after `attempts` tries in a row
    without a connection (None: it never gives up), and what is wrong with the arguments.
    """

    def __init__(
        self,
        url: str,
        *,
        min_delay: float = 1.0,
        max_delay: float = 60.0,
        stable_after: float = 10.0,
        attempts: int | None = None,
        is_final: Callable[[OSError], bool] = is_final,
        **options: Any,
    ) -> None:
        if not 0 < min_delay <= max_delay:
            raise ValueError("delays must be 0 < min_delay <= max_delay, in seconds")
        if attempts is not None and attempts < 1:
            raise ValueError(f"attempts must be a whole number from 1 on, not {attempts!r}")
        self._place = urls.parse(url).place  # what a log may show of it
        self._url = url
        self._options = options
        self._min_delay = min_delay
        self._max_delay = max_delay
        self._stable_after = stable_after
        self._attempts = attempts
        self._is_final = is_final
        self._websocket: WebSocket | None = None
        self._opened_at = 0.0
        self._delays = 0  # waited for since the last connection that lived
        self._failures = 0  # in a row

    def __iter__(self) -> Iterator[WebSocket]:
        return self

    def __next__(self) -> WebSocket:
        if self._websocket is not None:
            lived = time.monotonic() - self._opened_at
            websocket, self._websocket = self._websocket, None
            websocket.finish()
            if lived >= self._stable_after:
                self._delays = 0
            self._wait(f"{self._place}: connection over with {websocket.close_code}")
        while True:
            try:
                websocket = connect(self._url, **self._options)
            except OSError as error:
                self._failures += 1
                if self._failures == self._attempts or self._is_final(error):
                    raise
                self._wait(f"{self._place}: {error}", _retry_after(error))
            else:
                self._failures = 0
                self._opened_at = time.monotonic()
                self._websocket = websocket
                return websocket

    def _wait(self, why: str, least: float = 0.0) -> None:
        limit = min(self._max_delay, self._min_delay * 2 ** min(self._delays, 60))
        self._delays += 1
        delay = least + random.uniform(0, limit)
        logger.info("%s; next try in %.1f s", why, delay)
        gevent.sleep(delay)


def _retry_after(error: OSError) -> float:
    """Seconds that a refusal asks for (RFC 9110 section 10.2.3); 0 where it does not."""
    if not isinstance(error, HandshakeRefused):
        return 0.0
    values = [value for name, value in error.headers if name.lower() == "retry-after"]
    if len(values) != 1:
        return 0.0
    if values[0].isascii() and values[0].isdigit():
        seconds = float(values[0][:9])
    else:
        from email.utils import parsedate_to_datetime  # slow to import, and seldom needed

        try:
            seconds = parsedate_to_datetime(values[0]).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return min(max(0.0, seconds), LONGEST_RETRY_AFTER)
