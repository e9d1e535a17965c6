"""A proxy that does to requests and answers, at random, all that can be done to them."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from middlebox import Cut, Exchange, as_it_is, each_until_the_next

UP = 2


class Chaos:
    """Does at random to requests and answers all that can be done to them. What happens to which
    one follows from the seed and its number."""

    def __init__(self, seed: int, *, holds: bool) -> None:
        """`holds`: whether some answers are held back, too."""
        self.seed = seed
        self.counts: dict[str, int] = {}
        self._faults: list[tuple[float, Callable[[Exchange, random.Random], object]]] = [
            (0.50, self._as_it_is),
            (0.10, self._delay),
            (0.05, self._cut_before),
            (0.05, self._cut_request),
            (0.05, self._cut_after),
            (0.10, self._cut_answer),
            (0.05, self._end_answer),
            (0.05, self._repeat),
            (0.05, self._repeat_late),
            (0.05 if holds else 0.0, self._hold),
        ]

    def __call__(self, exchange: Exchange) -> None:
        if not exchange.kind:
            return as_it_is(exchange)
        chance = random.Random(self.seed * 1_000_003 + exchange.number)
        weights = [weight for weight, _ in self._faults]
        if exchange.kind != UP:
            weights[0] /= 5  # there are fewer of these
        (fault,) = chance.choices([fault for _, fault in self._faults], weights)
        name = fault.__name__.strip("_")
        self.counts[name] = self.counts.get(name, 0) + 1
        fault(exchange, chance)

    def _as_it_is(self, exchange: Exchange, chance: random.Random) -> None:
        exchange.pass_on()

    def _delay(self, exchange: Exchange, chance: random.Random) -> None:
        """So that those behind it overtake it; and its answer's pieces dawdle."""
        time.sleep(chance.random() / 10)
        with exchange.ask() as answer:
            if answer.is_empty:
                return exchange.near.sendall(answer.head + b"\r\n")
            return exchange.give(answer.head, self._dawdling(answer.chunks(), chance))

    def _dawdling(self, chunks: Iterator[bytes], chance: random.Random) -> Iterator[bytes]:
        for chunk in chunks:
            time.sleep(chance.random() / 50)
            yield chunk

    def _cut_before(self, exchange: Exchange, chance: random.Random) -> None:
        raise Cut

    def _cut_request(self, exchange: Exchange, chance: random.Random) -> None:
        far = exchange.send(chance.randrange(len(exchange.head) + 2 + len(exchange.body)))
        time.sleep(chance.random() / 50)
        far.close()
        raise Cut

    def _cut_after(self, exchange: Exchange, chance: random.Random) -> None:
        with exchange.ask():
            raise Cut

    def _cut_answer(self, exchange: Exchange, chance: random.Random) -> None:
        with exchange.ask() as answer:
            if answer.is_empty:
                raise Cut
            exchange.give(answer.head, self._some(answer.chunks(), chance))
        raise Cut

    def _end_answer(self, exchange: Exchange, chance: random.Random) -> None:
        """In the middle, but as if it were complete."""
        with exchange.ask() as answer:
            if answer.is_empty:
                return exchange.near.sendall(answer.head + b"\r\n")
            return exchange.give(answer.head, self._some(answer.chunks(), chance), framed=False)

    def _hold(self, exchange: Exchange, chance: random.Random) -> None:
        with exchange.ask() as answer:
            if answer.is_empty:
                return exchange.near.sendall(answer.head + b"\r\n")
            return exchange.give(answer.head, each_until_the_next(answer.chunks()))

    def _some(self, chunks: Iterator[bytes], chance: random.Random) -> Iterator[bytes]:
        yield from itertools.islice(chunks, chance.randrange(8))
        last = next(chunks, b"")
        yield last[: chance.randrange(len(last) + 1)]

    def _repeat(self, exchange: Exchange, chance: random.Random) -> None:
        """Twice at the same time; the page gets one of the two answers."""
        first = exchange.send()
        try:
            exchange.pass_on()
        finally:
            first.close()

    def _repeat_late(self, exchange: Exchange, chance: random.Random) -> None:
        pause = 0.05 + chance.random() / 2

        def again() -> None:
            time.sleep(pause)
            with suppress(OSError, Cut), exchange.send() as far:
                far.settimeout(5)
                while far.recv(65536):
                    pass

        threading.Thread(target=again, daemon=True).start()
        exchange.pass_on()
