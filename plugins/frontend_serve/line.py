"""The line before the model: requests are served in the order of their arrival, and only so many may wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import ceil
from threading import Condition, Thread
from time import monotonic

_MEMORY = 0.8  # how much of the mean time of a job is its past


class Full(Exception):
    """The line is as long as it may be; ``retry_after`` is in seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__("the line is full")
        self.retry_after = retry_after


class Line:
    """Runs jobs on ``workers`` threads, first come first served; at most ``room`` wait."""

    def __init__(self, workers: int, room: int) -> None:
        self.room = room
        self.running = 0
        self._workers = workers
        self._waiting: deque[Callable[[], None]] = deque()
        self._changed = Condition()
        self._closed = False
        self._seconds = 1.0  # a job takes, on average
        for number in range(workers):
            Thread(target=self._work, name=f"reply-{number}", daemon=True).start()

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._waiting)

    def enter(self, job: Callable[[], None]) -> None:
        """Put a job at the end of the line, or raise ``Full``; a job must not raise."""
        with self._changed:
            if self._closed or len(self._waiting) + self.running >= self.room + self._workers:
                raise Full(max(1, ceil(self._seconds * (len(self._waiting) + 1) / self._workers)))
            self._waiting.append(job)
            self._changed.notify()

    def leave(self, job: Callable[[], None]) -> bool:
        """Take a job out of the line; False if its turn has come already."""
        with self._changed:
            try:
                self._waiting.remove(job)
            except ValueError:
                return False
            return True

    def close(self) -> None:
        """Let nobody in any more and forget those who wait."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                job = self._waiting.popleft()
                self.running += 1
            start = monotonic()
            try:
                job()
            finally:
                del job
                with self._changed:
                    self.running -= 1
                    self._seconds = _MEMORY * self._seconds + (1 - _MEMORY) * (monotonic() - start)
