"""One timer for all deadlines of a hub's connections, instead of a timer each.

A deadline is rounded up to a slot of a tenth of a second. Entering, moving and leaving cost the
same however many there are, and slots without an entry cost nothing.
"""

from __future__ import annotations

import heapq
import sys
import time
from typing import Final, Protocol

from gevent import get_hub
from gevent.hub import Hub

SLOT: Final = 0.1
"""Seconds."""

_SLICE: Final = 256  # entries in a row, before the loop's other events have their turn


class Timed(Protocol):
    """What a wheel calls."""

    timer_slot: int
    """The wheel's own mark; 0: not set."""

    timer_place: int
    """The wheel's own, too."""

    def on_timer(self, now: float) -> float | None:
        """Called in the hub at or soon after the deadline; returns the next one, or None."""


class TimerWheel:
    """Deadlines by `time.monotonic()`, in seconds. `TimerWheel.of_hub()` is this thread's."""

    @staticmethod
    def of_hub(hub: Hub | None = None) -> TimerWheel:
        if hub is None:
            hub = get_hub()
        wheel: TimerWheel | None = hub.__dict__.get("plainsocket_timers")
        if wheel is None:
            wheel = hub.__dict__["plainsocket_timers"] = TimerWheel(hub)
        return wheel

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        # Entries know their places: a set would take several times the memory of a list.
        self._slots: dict[int, list[Timed]] = {}
        self._order: list[int] = []  # a heap of the keys of _slots
        self._timer = hub.loop.timer(0)
        self._next = 0  # the slot that the timer is set for; 0: none
        self._last = 0  # the slot worked off last, or being worked off

    def set(self, entry: Timed, when: float) -> None:
        """Call `entry.on_timer` at `when`, and no longer at the time set before."""
        slot = max(int(when / SLOT) + 1, self._last + 1)
        if entry.timer_slot == slot:
            return
        self.cancel(entry)
        entry.timer_slot = slot
        entries = self._slots.get(slot)
        if entries is None:
            entries = self._slots[slot] = []
            heapq.heappush(self._order, slot)
        entry.timer_place = len(entries)
        entries.append(entry)
        if not self._next or slot < self._next:
            self._arm(slot)

    def cancel(self, entry: Timed) -> None:
        """Forget `entry`."""
        if entry.timer_slot:
            # The slot may be the one that is being worked off, and no longer listed.
            entries = self._slots.get(entry.timer_slot)
            if entries is not None:
                last = entries.pop()
                if last is not entry:
                    place = entry.timer_place
                    entries[place] = last
                    last.timer_place = place
            entry.timer_slot = 0

    def _arm(self, slot: int) -> None:
        self._timer.stop()
        self._next = slot
        if slot:
            # Not below a millisecond: libuv knows none that short, and gevent warns of it.
            delay = max(0.001, slot * SLOT - time.monotonic())
            self._timer.close()
            self._timer = self._hub.loop.timer(delay)
            self._timer.start(self._fire)

    def _fire(self) -> None:
        now = time.monotonic()
        budget = _SLICE
        while self._order and self._order[0] * SLOT <= now and budget:
            self._last = self._order[0]
            entries = self._slots[self._last]
            while entries and budget:
                budget -= 1
                self._call(entries.pop(), now)
            if not entries:
                del self._slots[heapq.heappop(self._order)]
        self._arm(self._order[0] if self._order else 0)

    def _call(self, entry: Timed, now: float) -> None:
        entry.timer_slot = 0
        try:
            when = entry.on_timer(now)
        except BaseException:  # noqa: BLE001 - the hub tells what ends the program
            self._hub.handle_error(entry, *sys.exc_info())
        else:
            if when is not None:
                self.set(entry, max(when, now + SLOT))
