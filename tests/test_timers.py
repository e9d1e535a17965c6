"""timers.py, in a real hub. Only order and count are asserted: a machine may be slow."""

from __future__ import annotations

import time
from collections.abc import Callable

import gevent
import pytest

from plainsocket.timers import SLOT, TimerWheel

DEADLINE = 20.0  # seconds that a slow machine may take for what takes tenths


class Entry:
    """Notes its calls, and does what it is told in them."""

    def __init__(
        self,
        name: str = "",
        log: list[str] | None = None,
        action: Callable[[], object] | None = None,
    ) -> None:
        self.timer_slot = self.timer_place = 0
        self.name = name
        self.log = log if log is not None else []
        self.action = action
        self.calls: list[float] = []
        self.next: float | None = None

    def on_timer(self, now: float) -> float | None:
        self.calls.append(now)
        self.log.append(self.name)
        if self.action is not None:
            self.action()
        return self.next


class Interruption(BaseException):
    """As KeyboardInterrupt and gevent.Timeout: not an Exception."""


@pytest.fixture
def wheel() -> TimerWheel:
    return TimerWheel.of_hub()


@pytest.fixture
def errors(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """What would be printed by the hub."""
    reported: list[BaseException] = []
    monkeypatch.setattr(
        gevent.get_hub(), "handle_error", lambda _context, _type, value, _tb: reported.append(value)
    )
    return reported


def soon(slots: float = 1.0) -> float:
    return time.monotonic() + slots * SLOT


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        gevent.sleep(0.01)


def wait_past(wheel: TimerWheel, when: float) -> None:
    """Wait until everything that is due by `when` has been called."""
    last = Entry()
    wheel.set(last, when + SLOT)
    wait_until(lambda: last.calls)


def test_one_wheel_a_hub(wheel: TimerWheel) -> None:
    assert TimerWheel.of_hub() is wheel
    other = gevent.get_hub().threadpool.apply(TimerWheel.of_hub)
    assert other is not wheel


def test_called_once_and_not_before_its_time(wheel: TimerWheel) -> None:
    entry = Entry()
    when = soon()
    wheel.set(entry, when)
    wait_past(wheel, when)
    assert len(entry.calls) == 1
    assert entry.calls[0] >= when - 1e-6
    assert entry.timer_slot == 0


def test_called_in_the_hub(wheel: TimerWheel) -> None:
    greenlets: list[object] = []
    entry = Entry(action=lambda: greenlets.append(gevent.getcurrent()))
    wheel.set(entry, soon())
    wait_until(lambda: entry.calls)
    assert greenlets == [gevent.get_hub()]


def test_called_in_the_order_of_deadlines(wheel: TimerWheel) -> None:
    log: list[str] = []
    now = time.monotonic()
    for name, slots in (("c", 5), ("a", 1), ("e", 9), ("b", 3), ("d", 7)):
        wheel.set(Entry(name, log), now + slots * SLOT)
    wait_until(lambda: len(log) == 5)
    assert log == ["a", "b", "c", "d", "e"]


def test_deadline_in_the_past_is_due_now(wheel: TimerWheel) -> None:
    entry = Entry()
    wheel.set(entry, time.monotonic() - 100)
    wait_until(lambda: entry.calls)
    assert len(entry.calls) == 1


def test_moved_to_later(wheel: TimerWheel) -> None:
    log: list[str] = []
    moved, between = Entry("moved", log), Entry("between", log)
    wheel.set(moved, soon(1))
    wheel.set(between, soon(3))
    wheel.set(moved, soon(5))
    wait_until(lambda: moved.calls)
    assert log == ["between", "moved"]


def test_moved_to_earlier(wheel: TimerWheel) -> None:
    log: list[str] = []
    moved, between = Entry("moved", log), Entry("between", log)
    wheel.set(moved, time.monotonic() + 3600)
    wheel.set(between, soon(4))
    wheel.set(moved, soon(1))
    wait_until(lambda: between.calls)
    assert log == ["moved", "between"]


def test_set_again_to_the_same_time_is_called_once(wheel: TimerWheel) -> None:
    entry = Entry()
    when = soon()
    for _ in range(3):
        wheel.set(entry, when)
    wait_past(wheel, when)
    assert len(entry.calls) == 1


def test_set_again_after_its_call(wheel: TimerWheel) -> None:
    entry = Entry()
    for count in (1, 2):
        wheel.set(entry, soon())
        wait_until(lambda count=count: len(entry.calls) == count)  # type: ignore[misc]


def test_cancelled(wheel: TimerWheel) -> None:
    entry, other = Entry(), Entry()
    when = soon()
    wheel.set(entry, when)
    wheel.set(other, when)
    wheel.cancel(entry)
    wait_past(wheel, when)
    assert entry.calls == []
    assert entry.timer_slot == 0
    assert len(other.calls) == 1


def test_cancelled_twice_or_never_set(wheel: TimerWheel) -> None:
    entry = Entry()
    wheel.cancel(entry)
    wheel.set(entry, soon())
    wheel.cancel(entry)
    wheel.cancel(entry)
    assert entry.timer_slot == 0


def test_cancelled_and_set_again(wheel: TimerWheel) -> None:
    entry = Entry()
    when = soon()
    wheel.set(entry, when)
    wheel.cancel(entry)
    wheel.set(entry, when)
    wait_past(wheel, when)
    assert len(entry.calls) == 1


def test_cancelled_by_a_neighbour_in_the_same_slot(wheel: TimerWheel) -> None:
    first, second = Entry(), Entry()
    first.action = lambda: wheel.cancel(second)
    second.action = lambda: wheel.cancel(first)
    when = soon()
    wheel.set(first, when)
    wheel.set(second, when)
    wait_past(wheel, when)
    assert len(first.calls) + len(second.calls) == 1


def test_cancelled_by_itself(wheel: TimerWheel) -> None:
    entry = Entry()
    entry.action = lambda: wheel.cancel(entry)
    when = soon()
    wheel.set(entry, when)
    wait_past(wheel, when)
    assert len(entry.calls) == 1


def test_called_again_at_the_time_it_returns(wheel: TimerWheel) -> None:
    log: list[str] = []
    repeated, between = Entry("repeated", log), Entry("between", log)
    repeated.next = soon(5)
    wheel.set(repeated, soon(1))
    wheel.set(between, soon(3))
    wait_until(lambda: len(repeated.calls) == 2)
    wheel.cancel(repeated)
    assert log == ["repeated", "between", "repeated"]


def test_returning_a_past_time_does_not_spin(wheel: TimerWheel) -> None:
    entry = Entry()
    entry.next = 0.0
    start = time.monotonic()
    wheel.set(entry, start)
    wait_until(lambda: len(entry.calls) >= 3)
    wheel.cancel(entry)
    assert len(entry.calls) <= (time.monotonic() - start) / SLOT + 2


def test_returning_a_past_time_does_not_make_up_for_idle_time() -> None:
    wheel = TimerWheel(gevent.get_hub())  # which has been idle since the machine was started
    entry = Entry()
    entry.next = 0.0

    def stop_a_flood() -> None:
        if len(entry.calls) == 100:
            entry.next = None

    entry.action = stop_a_flood
    start = time.monotonic()
    wheel.set(entry, 0.0)
    wait_until(lambda: len(entry.calls) >= 2)
    wheel.cancel(entry)
    assert len(entry.calls) <= (time.monotonic() - start) / SLOT + 2


def test_more_in_a_slot_than_one_slice_are_all_called(wheel: TimerWheel) -> None:
    entries = [Entry() for _ in range(1000)]
    when = soon()
    for entry in entries:
        wheel.set(entry, when)
    last = Entry()
    wheel.set(last, when + 2 * SLOT)
    wait_until(lambda: last.calls)
    assert [len(entry.calls) for entry in entries] == [1] * 1000


def test_others_have_their_turn_among_many_entries(wheel: TimerWheel) -> None:
    log: list[str] = []
    when = soon(2)
    for _ in range(1000):
        wheel.set(Entry("", log), when)
    counts: set[int] = set()
    end = time.monotonic() + DEADLINE
    while len(log) < 1000 and time.monotonic() < end:
        counts.add(len(log))
        gevent.sleep(0)
    assert len(log) == 1000
    assert counts - {0}, "all were called in one go"


def test_error_is_reported_once_and_stops_no_other(
    wheel: TimerWheel, errors: list[BaseException]
) -> None:
    def break_down() -> None:
        raise LookupError("out of order")

    when = soon()
    broken = [Entry(action=break_down) for _ in range(3)]
    sound = [Entry() for _ in range(3)]
    for pair in zip(broken, sound, strict=True):
        for entry in pair:
            wheel.set(entry, when)
    later = Entry()
    wheel.set(later, when + SLOT)
    wait_until(lambda: later.calls)
    assert [len(entry.calls) for entry in broken + sound] == [1] * 6
    assert [type(error) for error in errors] == [LookupError] * 3


def test_interruption_leaves_the_wheel_turning(
    wheel: TimerWheel, errors: list[BaseException]
) -> None:
    def interrupt() -> None:
        raise Interruption

    when = soon()
    interrupted, later = Entry(action=interrupt), Entry()
    wheel.set(interrupted, when)
    wheel.set(later, when + SLOT)
    wait_until_or_give_up(lambda: later.calls)
    was_called = bool(later.calls)
    restart(wheel)
    assert was_called
    assert [type(error) for error in errors] == [Interruption]


def test_entry_set_to_the_past_in_another_ones_call(wheel: TimerWheel) -> None:
    late = Entry()
    entry = Entry(action=lambda: wheel.set(late, time.monotonic() - 10 * SLOT))
    wheel.set(entry, soon())
    wait_until(lambda: entry.calls)
    wait_until_or_give_up(lambda: late.calls)
    assert len(late.calls) == 1


def test_entry_set_to_now_in_another_ones_call(wheel: TimerWheel) -> None:
    late = Entry()
    entry = Entry(action=lambda: wheel.set(late, time.monotonic()))
    wheel.set(entry, soon())
    wait_until(lambda: late.calls)
    assert len(late.calls) == 1


def wait_until_or_give_up(condition: Callable[[], object]) -> None:
    """For what a bug would keep from ever happening: do not make the whole suite wait."""
    end = time.monotonic() + 2
    while not condition() and time.monotonic() < end:
        gevent.sleep(0.01)


def restart(wheel: TimerWheel) -> None:
    """Set a wheel going that a bug has stopped, for the tests behind this one."""
    kick = Entry()
    wheel.set(kick, 0.0)
    wait_until(lambda: kick.calls)
