"""The greenlet that serves a connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent

from .carriers import calls


class Greenlet(gevent.Greenlet):  # type: ignore[type-arg]
    """Calls a function. It begins in the hub, of which there is nothing to remember."""

    __slots__ = ("_job", "_running")

    spawning_stack_limit = 0

    def __init__(
        self,
        running: set[Greenlet],
        function: Callable[..., None],
        arguments: tuple[Any, ...],
    ) -> None:
        """While it runs it is in `running`."""
        super().__init__()
        self._running = running
        self._job: Any = function, arguments  # not Greenlet's `args`, which its repr shows
        running.add(self)

    def _run(self) -> None:
        calls.begin_small()
        function, arguments = self._job
        self._job = None
        try:
            function(*arguments)
        except ConnectionError:
            pass  # it is gone before it was answered
        finally:
            self._running.discard(self)
