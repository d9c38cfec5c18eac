"""Errors that a person can act on: what, which, where, what to do next."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class CamelBellError(Exception):
    """A mistake or an outside failure, told in one line with a hint of what to do."""

    exit_code = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in one file of a bundle; ``line`` counts from 1, 0 where it is unknown."""

    file: Path
    line: int
    key: str
    what: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else str(self.file)
        return f"{place}: {self.key}: {self.what}" if self.key else f"{place}: {self.what}"


class BundleError(CamelBellError):
    """All the mistakes of a bundle at once."""

    def __init__(self, character: str, problems: list[Problem]) -> None:
        count = f"{len(problems)} mistake{'s' if len(problems) > 1 else ''}"
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"character {character!r} has {count}:\n{lines}", "mend the lines above, then run again")
        self.problems = problems


class WorkspaceBusy(CamelBellError):
    """Another process works in this workspace."""


class ModelMismatch(CamelBellError):
    """A base model or an adapter is not the one that it should be."""
