"""What a peer must have done by when, and what happens if it has not."""

from __future__ import annotations

from typing import Any, Final

from .carriers import calls
from .carriers.base import Carrier, Receiver
from .frames import CloseCode
from .options import Options
from .protocol import MAX_PINGS, Protocol
from .timers import SLOT, TimerWheel

_STALL_SIZE: Final = 64 * 1024  # bytes: the least that counts within a timeout as going on


class Deadlines(Receiver):
    """A protocol and its carrier, and the time that their peer has: to answer pings, to take what
    is sent, to finish a message, to close.

    One timer for all, by which the hub looks after them.
    """

    __slots__ = (
        "_acknowledged",
        "_carrier",
        "_close_deadline",
        "_compressor_look",
        "_grace_used",
        "_looked_at",
        "_message_mark",
        "_options",
        "_paused",
        "_ping_sent",
        "_pings_sent",
        "_pings_written",
        "_protocol",
        "_sign_of_life",
        "_stall",
        "_timers",
        "bytes_received",
        "messages_received",
        "timer_slot",
    )

    _carrier: Carrier  # set by what inherits this

    def __init__(
        self,
        options: Options,
        protocol: Protocol,
        hub: Any,
        now: float,
        looks_at_compressor: bool,
    ) -> None:
        """`looks_at_compressor`: whether the connection's own one has memory to give back."""
        self._options = options
        self._protocol = protocol
        self._paused = False  # whether the peer's bytes are not being read
        self._timers = TimerWheel.of_hub(hub)
        self.timer_slot = 0
        """The wheel's."""
        self._sign_of_life = now
        self._ping_sent: float | None = None  # when the keepalive's ping, not answered yet, was
        self._pings_sent = 0
        self._pings_written: dict[bytes, float] | None = None  # when, those not answered yet
        self._acknowledged = 0  # bytes that the peer had acknowledged, at the last look
        self._looked_at = now
        self._stall: tuple[float, int] | None = None  # since when, and how many bytes then
        self._close_deadline: float | None = None
        # When to look whether the connection's own compressor is in use, where it may have one.
        self._compressor_look: float | None = None
        if looks_at_compressor:
            self._compressor_look = now + options.compression_idle
        self._grace_used = False
        # Of a message not complete: since when, how many messages and bytes had come by then.
        self._message_mark: tuple[float, int, int] | None = None
        self.messages_received = 0
        self.bytes_received = 0
        """Of frames, the handshake not counted."""

    def _set_timer(self, when: float) -> None:
        """Look at the deadlines at `when`, if not before."""
        is_set = self.timer_slot and self.timer_slot * SLOT <= when
        if not is_set and not self._carrier.closed:
            self._timers.set(self, when)

    def _begin_close_deadline(self) -> None:
        self._close_deadline = calls.monotonic() + self._options.close_timeout
        self._look_soon()

    def _watch_for_stall(self) -> None:
        if self._stall is None:
            now = calls.monotonic()
            self._acknowledged = self._carrier.bytes_accepted - self._carrier.unacknowledged()
            self._looked_at = now
            self._stall = (now, self._acknowledged)
            self._look_soon()

    def _look_soon(self) -> None:
        self._set_timer(calls.monotonic() + self._look_interval)

    @property
    def _look_interval(self) -> float:
        """Seconds between two looks at how far the peer has got, while it has far to go."""
        options = self._options
        return min(1.0, options.send_timeout / 4, options.ping_timeout / 4, options.close_timeout)

    def on_timer(self, now: float) -> float | None:
        """Look at every deadline; return when to look again."""
        looks: list[float] = []
        progressed = self._look_at_progress(now, looks)
        if self._stall is not None and not self._look_at_stall(now, self._stall):
            self._lose(f"peer took too little for {self._options.send_timeout} s")
            return None
        if self._message_mark is not None and not self._look_at_message(now, looks):
            self._fail(
                CloseCode.POLICY_VIOLATION,
                f"message unfinished after {self._options.message_timeout} s",
            )
        if self._compressor_look is not None:
            looks.append(self._look_at_compressor(now, self._compressor_look))
        if self._close_deadline is not None:
            if progressed:
                self._close_deadline = now + self._options.close_timeout
            if now >= self._close_deadline and not self._has_grace():
                self._lose(f"close not answered within {self._options.close_timeout} s")
                return None
            looks.append(self._close_deadline)
        elif self._options.ping_interval is not None:
            looks.append(self._look_at_keepalive(now, self._options.ping_interval))
            if looks[-1] <= now and not self._has_grace():
                self._lose(f"no answer to a ping within {self._options.ping_timeout} s")
                return None
        return min(looks, default=None)

    def _look_at_progress(self, now: float, looks: list[float]) -> bool:
        """Whether the peer has acknowledged bytes of ours since a look not long ago."""
        waiting = self._carrier.unacknowledged()
        acknowledged = self._carrier.bytes_accepted - waiting
        # After a long time without a look it can't be told when they were acknowledged.
        is_recent = now - self._looked_at < 2 * self._look_interval + SLOT
        progressed = is_recent and acknowledged > self._acknowledged
        self._acknowledged = acknowledged
        self._looked_at = now
        if progressed:
            self._sign_of_life = now
        if waiting:
            looks.append(now + self._look_interval)
        return progressed

    def _look_at_stall(self, now: float, stall: tuple[float, int]) -> bool:
        """False if the peer takes too little of what waits for it."""
        since, acknowledged_then = stall
        if not self._carrier.buffered:
            self._stall = None
        elif self._acknowledged - acknowledged_then >= _STALL_SIZE:
            self._stall = (now, self._acknowledged)
        elif now - since >= self._options.send_timeout:
            return False
        return True

    def _look_at_compressor(self, now: float, when: float) -> float:
        """Give an idle compressor's memory back; return when to look again."""
        if now >= when:
            self._protocol.release_if_idle()
            when = now + self._options.compression_idle
            self._compressor_look = when
        return when

    def _mark_message(self, now: float) -> None:
        self._message_mark = (now, self.messages_received, self.bytes_received)

    def _look_at_message(self, now: float, looks: list[float]) -> bool:
        """False if a message stays unfinished for too long."""
        assert self._message_mark is not None
        since, messages, received = self._message_mark
        if not self._protocol.message_begun:
            self._message_mark = None
            return True
        has_grown = self.bytes_received - received >= _STALL_SIZE
        if has_grown or self.messages_received > messages or self._paused:
            self._mark_message(now)
            since = now
        looks.append(since + self._options.message_timeout)
        return now < looks[-1]

    def _look_at_keepalive(self, now: float, interval: float) -> float:
        """Ping a silent peer; return when to look again: for a dead one not after `now`."""
        if self._ping_sent is not None:
            if self._paused:
                # Its pong may wait behind what we do not read: the deadline rests until then. But
                # it is asked again: a write tells of a peer that is gone.
                if now >= self._ping_sent + interval:
                    self._ping_sent = None
            elif self._sign_of_life > self._ping_sent:
                self._ping_sent = None
                self._grace_used = False
        if self._ping_sent is None:
            if now < self._sign_of_life + interval:
                return self._sign_of_life + interval
            self._ping_sent = now
            self._write_ping()
        return self._ping_sent + (interval if self._paused else self._options.ping_timeout)

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
