"""Greenlets that are kept: what serves one connection serves another one afterwards.

To begin a job in one costs a switch; to make a greenlet of gevent's for it, and to free that, costs
as much as all the rest of a connection.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from typing import Final, Protocol

import gevent

from .carriers import calls

_MOST_PARKED: Final = 64  # greenlets that wait for something to do
_count_references: Final = getattr(sys, "getrefcount", lambda _object: 0)
_count_weak_references: Final = weakref.getweakrefcount


class Job(Protocol):
    """What a worker does."""

    def run(self) -> None:
        """Do it. In a greenlet that is nobody else's meanwhile."""


class Workers:
    """Greenlets of one hub, made as they are needed.

    Each job has fresh context variables and greenlet locals, though its greenlet may have done
    others before.
    """

    __slots__ = ("_done", "_hub", "_is_over", "_is_starting", "_on_free", "_parked", "running")

    def __init__(self, on_free: Callable[[], object] | None = None) -> None:
        """`on_free` is called in the hub when some have become free."""
        self._on_free = on_free
        self._hub = gevent.get_hub()
        self.running: set[Worker] = set()
        """Those that have a job."""
        self._is_starting = False
        self._is_over = False
        self._done: list[Worker] = []
        self._parked: list[Worker] = []

    def start(self, job: Job) -> None:
        """In the hub: begin with a job, and return when it is done or waits for something."""
        worker = self._free_worker()
        worker.job = job
        self.running.add(worker)
        self._is_starting = True
        calls.switch(worker)
        self._is_starting = False
        del worker  # or it would count as known
        self._collect()

    def _free_worker(self) -> Worker:
        while True:
            while self._parked:
                worker = self._parked.pop()
                if not worker.dead:  # killed while it was parked
                    return worker
            calls.switch(Worker(self))  # which parks
            self._collect()

    def finish(self, worker: Worker) -> None:
        """The worker, in which this runs, has done its job."""
        self.running.discard(worker)
        if not worker.is_killed:
            self._done.append(worker)
        if not self._is_starting and len(self._done) <= 1:
            self._hub.loop.run_callback(self._collect)

    def park(self, worker: Worker) -> None:
        """A new one, in which this runs, is ready."""
        self._done.append(worker)

    def _collect(self) -> None:
        """In the hub: keep the workers that are free; but those that somebody may still know, be
        it greenlet-local values, a Timeout or a variable, are of no more use."""
        while self._done:
            worker = self._done.pop()
            known = _count_references(worker)
            is_new = worker.known is None  # and for a job that is there
            if is_new:
                worker.known = known
            if (
                known != worker.known
                or not known
                or worker.has_links()
                or _count_weak_references(worker)
                or worker.spawn_tree_locals
                or len(self._parked) >= _MOST_PARKED
                or (self._is_over and not is_new)
            ):
                calls.switch(worker)  # it has no job, and ends
            else:
                self._parked.append(worker)
        if self._on_free is not None:
            self._on_free()

    def kill(self) -> None:
        """Kill those that have a job, and let the others go."""
        self._is_over = True
        for worker in [*self.running, *self._parked]:
            worker.kill(block=False)


class Worker(gevent.Greenlet):  # type: ignore[type-arg]
    """Does one job after the other."""

    __slots__ = ("_workers", "is_killed", "job", "known")

    spawning_stack_limit = 0  # it begins in the hub, of which there is nothing to remember

    def __init__(self, workers: Workers) -> None:
        super().__init__()
        self._workers = workers
        self.job: Job | None = None
        self.known: int | None = None  # how many references there are where nobody knows it
        self.is_killed = False

    def _run(self) -> None:
        calls.begin_small()
        workers, hub = self._workers, self.parent
        workers.park(self)
        while True:
            calls.switch(hub)
            job = self.job
            if job is None:
                return
            try:
                job.run()
            except BaseException:
                self.is_killed = True
                raise
            finally:
                del job
                self.job = None
                self.gr_context = None  # the next one has a new one
                workers.finish(self)
