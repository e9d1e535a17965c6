"""What a peer must have done by when, and what happens if it has not."""

from __future__ import annotations

from typing import Any, Final

from gevent import get_hub

from .carriers import calls
from .carriers.base import Carrier, Receiver
from .frames import CloseCode
from .options import Options
from .protocol import MAX_PINGS, Protocol
from .timers import SLOT, TimerWheel

_STALL_SIZE: Final = 64 * 1024  # bytes: the least that counts within a timeout as going on


_MOST_COMMON: Final = 16  # of one hub, that are found again


class Common:
    """What the connections of one hub with the same options have in common."""

    __slots__ = (
        "batch_end",
        "batch_time",
        "cork_end",
        "delivering",
        "hub",
        "options",
        "read_limit",
        "sent_at",
        "thread",
        "timers",
        "write_limit",
    )

    @staticmethod
    def of(options: Options) -> Common:
        """Those of this hub with `options`."""
        hub = get_hub()
        known: dict[int, Common] | None = hub.__dict__.get("plainsocket_common")
        if known is None or len(known) >= _MOST_COMMON:
            known = hub.__dict__["plainsocket_common"] = {}
        common = known.get(id(options))  # which holds them, so that the number stays theirs
        if common is None:
            common = known[id(options)] = Common(hub, options)
        return common

    def __init__(self, hub: Any, options: Options) -> None:
        self.hub = hub
        self.thread = calls.this_thread()
        self.timers = TimerWheel.of_hub(hub)
        self.options = options
        self.read_limit = options.read_limit  # attributes of this are found faster
        self.write_limit = options.write_limit
        self.batch_time = options.batch_time
        # One connection at a time works through what came.
        self.delivering: Any = None  # that one
        self.batch_end = 0.0
        self.cork_end = 0.0
        self.sent_at = 0.0  # when, in this batch and since the last message was taken; 0: not


class _Due:
    """What a peer has yet to do, besides to answer a ping: most have nothing."""

    __slots__ = (
        "acknowledged",
        "close",
        "compressor_look",
        "looked_at",
        "message",
        "stall",
    )

    def __init__(self) -> None:
        self.acknowledged = 0  # bytes that the peer had acknowledged, at the last look
        self.looked_at = 0.0
        self.stall: tuple[float, int] | None = None  # since when, and how many bytes then
        self.close: float | None = None  # the closing's deadline
        # Of a message not complete: since when, how many messages and bytes had come by then.
        self.message: tuple[float, int, int] | None = None
        # When to look whether the connection's own compressor is in use, where it may have one.
        self.compressor_look: float | None = None

    def is_nothing(self) -> bool:
        return (
            self.stall is None
            and self.message is None
            and self.close is None
            and self.compressor_look is None
        )


class Deadlines(Receiver):
    """A protocol and its carrier, and the time that their peer has: to answer pings, to take what
    is sent, to finish a message, to close.

    One timer for all, by which the hub looks after them.
    """

    __slots__ = (
        "_carrier",
        "_common",
        "_due",
        "_grace_used",
        "_paused",
        "_ping_sent",
        "_pings_sent",
        "_pings_written",
        "_protocol",
        "_sign_of_life",
        "bytes_received",
        "messages_received",
        "timer_place",
        "timer_slot",
    )

    _carrier: Carrier  # set by what inherits this

    def __init__(
        self, common: Common, protocol: Protocol, now: float, looks_at_compressor: bool
    ) -> None:
        """`looks_at_compressor`: whether the connection's own one has memory to give back."""
        self._common = common
        self._protocol = protocol
        self._paused = False  # whether the peer's bytes are not being read
        self.timer_slot = self.timer_place = 0
        """The wheel's."""
        self._sign_of_life = now
        self._ping_sent = 0.0  # when the keepalive's ping, not answered yet, was; 0: there is none
        self._pings_sent = 0
        self._pings_written: dict[bytes, float] | None = None  # when, those not answered yet
        self._due: _Due | None = None
        if looks_at_compressor:
            self._dues().compressor_look = now + common.options.compression_idle
        self._grace_used = False
        self.messages_received = 0
        self.bytes_received = 0
        """Of frames, the handshake not counted."""

    def _dues(self) -> _Due:
        if self._due is None:
            self._due = _Due()
        return self._due

    def _set_timer(self, when: float) -> None:
        """Look at the deadlines at `when`, if not before."""
        is_set = self.timer_slot and self.timer_slot * SLOT <= when
        if not is_set and not self._carrier.closed:
            self._common.timers.set(self, when)

    def _begin_close_deadline(self) -> None:
        self._dues().close = calls.monotonic() + self._common.options.close_timeout
        self._look_soon()

    @property
    def _has_close_deadline(self) -> bool:
        return self._due is not None and self._due.close is not None

    def _watch_for_stall(self) -> None:
        due = self._due
        if due is None or due.stall is None:
            due = self._dues()
            now = calls.monotonic()
            due.acknowledged = self._carrier.bytes_accepted - self._carrier.unacknowledged()
            due.looked_at = now
            due.stall = (now, due.acknowledged)
            self._look_soon()

    def _look_soon(self) -> None:
        self._set_timer(calls.monotonic() + self._look_interval)

    @property
    def _look_interval(self) -> float:
        """Seconds between two looks at how far the peer has got, while it has far to go."""
        options = self._common.options
        return min(1.0, options.send_timeout / 4, options.ping_timeout / 4, options.close_timeout)

    def on_timer(self, now: float) -> float | None:
        """Look at every deadline; return when to look again."""
        options = self._common.options
        looks: list[float] = []
        progressed = self._look_at_progress(now, looks)
        due = self._due
        if due is not None:
            if due.stall is not None and not self._look_at_stall(now, due, due.stall):
                self._lose(f"peer took too little for {options.send_timeout} s")
                return None
            if due.message is not None and not self._look_at_message(now, due, looks):
                self._fail(
                    CloseCode.POLICY_VIOLATION,
                    f"message unfinished after {options.message_timeout} s",
                )
            if due.compressor_look is not None:
                looks.append(self._look_at_compressor(now, due, due.compressor_look))
        if due is not None and due.close is not None:
            if progressed:
                due.close = now + options.close_timeout
            if now >= due.close and not self._has_grace():
                self._lose(f"close not answered within {options.close_timeout} s")
                return None
            looks.append(due.close)
        elif options.ping_interval is not None:
            looks.append(self._look_at_keepalive(now, options.ping_interval))
            if looks[-1] <= now and not self._has_grace():
                self._lose(f"no answer to a ping within {options.ping_timeout} s")
                return None
        return min(looks, default=None)

    def _look_at_progress(self, now: float, looks: list[float]) -> bool:
        """Whether the peer has acknowledged bytes of ours since a look not long ago."""
        waiting = self._carrier.unacknowledged()
        due = self._due
        if due is None:
            if not waiting:
                return False
            due = self._dues()
        acknowledged = self._carrier.bytes_accepted - waiting
        # After a long time without a look it can't be told when they were acknowledged.
        is_recent = now - due.looked_at < 2 * self._look_interval + SLOT
        progressed = is_recent and acknowledged > due.acknowledged
        due.acknowledged = acknowledged
        due.looked_at = now
        if progressed:
            self._sign_of_life = now
        if waiting:
            looks.append(now + self._look_interval)
        elif due.is_nothing():
            self._due = None
        return progressed

    def _look_at_stall(self, now: float, due: _Due, stall: tuple[float, int]) -> bool:
        """False if the peer takes too little of what waits for it."""
        since, acknowledged_then = stall
        if not self._carrier.buffered:
            due.stall = None
        elif due.acknowledged - acknowledged_then >= _STALL_SIZE:
            due.stall = (now, due.acknowledged)
        elif now - since >= self._common.options.send_timeout:
            return False
        return True

    def _look_at_compressor(self, now: float, due: _Due, when: float) -> float:
        """Give an idle compressor's memory back; return when to look again."""
        if now >= when:
            self._protocol.release_if_idle()
            when = now + self._common.options.compression_idle
            due.compressor_look = when
        return when

    def _mark_message(self, now: float) -> None:
        self._dues().message = (now, self.messages_received, self.bytes_received)

    def _look_at_message(self, now: float, due: _Due, looks: list[float]) -> bool:
        """False if a message stays unfinished for too long."""
        assert due.message is not None
        since, messages, received = due.message
        if not self._protocol.message_begun:
            due.message = None
            return True
        has_grown = self.bytes_received - received >= _STALL_SIZE
        if has_grown or self.messages_received > messages or self._paused:
            self._mark_message(now)
            since = now
        looks.append(since + self._common.options.message_timeout)
        return now < looks[-1]

    def _look_at_keepalive(self, now: float, interval: float) -> float:
        """Ping a silent peer; return when to look again: for a dead one not after `now`."""
        if self._ping_sent:
            if self._paused:
                # Its pong may wait behind what we do not read: the deadline rests until then. But
                # it is asked again: a write tells of a peer that is gone.
                if now >= self._ping_sent + interval:
                    self._ping_sent = 0.0
            elif self._sign_of_life > self._ping_sent:
                self._ping_sent = 0.0
                self._grace_used = False
        if not self._ping_sent:
            if now < self._sign_of_life + interval:
                return self._sign_of_life + interval
            self._ping_sent = now
            self._write_ping()
        ping_timeout = self._common.options.ping_timeout
        return self._ping_sent + (interval if self._paused else ping_timeout)

    def _has_grace(self) -> bool:
        """Whether the peer's answer may be there already, unread because the loop was busy."""
        if self._grace_used or self._paused or not self._carrier.unread():
            return False
        self._grace_used = True
        return True

    def _write_ping(self) -> bytes:
        self._pings_sent += 1
        payload = self._pings_sent.to_bytes(8, "big")
        if self._pings_written is None:
            self._pings_written = {}
        self._pings_written[payload] = calls.monotonic()
        if len(self._pings_written) > MAX_PINGS:
            del self._pings_written[next(iter(self._pings_written))]
        self._carrier.write_control(self._protocol.ping(payload))
        return payload

    def _fail(self, code: int, reason: str) -> None:
        """End the connection by an error of the peer's."""
        raise NotImplementedError

    def _lose(self, reason: str) -> None:
        self._protocol.fail(CloseCode.ABNORMAL_CLOSURE, reason)
        self._carrier.abort(reset=True)
