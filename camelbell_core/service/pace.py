"""How many requests may be under way at once: up by adding, down by a factor, one cool-down for all."""

from __future__ import annotations

from dataclasses import dataclass, field

_STEPS = 32  # round trips from one request at a time to the most
_TOO_MANY = 0.2  # the share of refusals at which fewer requests are sent
_WEIGHT = 1 / 16  # of the latest outcome in that share
_FEWER = 0.7


@dataclass
class Pace:
    """The number of requests that may be under way, as the service bears it (times are seconds of a steady clock).

    A refusal (429) pauses every start for as long as the service asks. A success of a request that was sent after
    the refused one shows that the service takes requests, and lifts the pause; else it runs its course, the number
    is halved, and one probe goes first. Where refusals are more than a fifth of what comes back the number goes down,
    too, once a round trip; each success adds a little (additive increase, multiplicative decrease: Chiu and Jain 1989).
    """

    most: int
    limit: float = field(init=False)
    probing: bool = field(default=False, init=False)
    paused_until: float = field(default=0.0, init=False)
    _mark: float = field(default=0.0, init=False)  # a success of what was sent later lifts the pause
    _lowered: float = field(default=0.0, init=False)  # what was sent before tells nothing of the new number
    _share: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.limit = float(self.most)

    def allowed(self, now: float) -> int:
        """Return how many may be under way: none in a pause, one probe after it, never less for long."""
        if self.paused_until:
            if now < self.paused_until:
                return 0
            self.paused_until = 0.0
            self.probing = True
            self._lower(now, 0.5)
        return 1 if self.probing else int(self.limit)

    def succeeded(self, sent: float) -> None:
        """Note a reply to a request that was sent at that time."""
        self._share *= 1 - _WEIGHT
        if sent > self._mark:
            self.paused_until = 0.0
            self.probing = False
        if not self.paused_until:
            self.limit = min(float(self.most), self.limit + max(1, self.most / _STEPS) / self.limit)

    def refused(self, sent: float, now: float, wait: float) -> None:
        """Note that the service is too busy, or not there, and asks to wait."""
        self.paused_until = max(self.paused_until, now + wait)
        self._mark = max(self._mark, sent)
        self.failed(sent, now)

    def failed(self, sent: float, now: float) -> None:
        """Note a failure that may come of too many requests, such as HTTP 500 or no answer in time."""
        self._share += (1 - self._share) * _WEIGHT
        if self._share > _TOO_MANY and sent > self._lowered:
            self._lower(now, _FEWER)

    def _lower(self, now: float, factor: float) -> None:
        self.limit = max(1.0, self.limit * factor)
        self._lowered = now
        self._share = 0.0
