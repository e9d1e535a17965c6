"""How far the run is: one line that moves on a terminal, one line each elsewhere."""

from __future__ import annotations

import sys
import time


class Progress:
    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.done = 0
        self.began = time.monotonic()
        self.terminal = sys.stderr.isatty()

    def _left(self) -> str:
        if not self.done:
            return ""
        seconds = (time.monotonic() - self.began) / self.done * (self.steps - self.done)
        return f", about {int(seconds) // 60}:{int(seconds) % 60:02d} left"

    def doing(self, what: str) -> None:
        if self.terminal:
            width = 24
            full = width * self.done // max(1, self.steps)
            bar = "█" * full + "░" * (width - full)
            line = f"\r{bar} {self.done}/{self.steps}{self._left()}  {what}\x1b[K"
            sys.stderr.write(line)
            sys.stderr.flush()

    def did(self, what: str, keep: bool = False) -> None:
        """`keep`: what went wrong stays on the screen."""
        self.done += 1
        if not self.terminal:
            print(f"[{self.done}/{self.steps}{self._left()}] {what}", file=sys.stderr, flush=True)
        elif keep:
            print(f"\r{what}\x1b[K", file=sys.stderr, flush=True)

    def say(self, what: str) -> None:
        print(f"\r{what}\x1b[K" if self.terminal else what, file=sys.stderr, flush=True)
