"""The bottom line: who talks, by what, when in the story, how fast; what does not fit is left out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from camelbell_core.roles import LanguageModel
    from camelbell_core.session import Session, Turn


def bottom_line(session: Session, language: str, speed: str, width: int) -> str:
    """Return the line, no wider than ``width`` cells."""
    model, at = session.model, session.settings.at
    # The higher the number the sooner a part is left out.
    parts = [
        (0, session.character.title(language)),
        (2, Path(model.name).name if Path(model.name).is_absolute() else model.name),
        (3, f"adapter {Path(model.adapter).name}" if model.adapter else "no adapter"),
        (1, session.character.canon.place(at, language) if at else ""),
        (4, speed),
        (5, "" if session.log else "not kept"),
    ]
    parts = [(rank, text) for rank, text in parts if text]
    while len(parts) > 1 and _width(parts) > width:
        parts.remove(max(parts))
    return _cut(_joined(parts), width)


def _joined(parts: list[tuple[int, str]]) -> str:
    return f" {' · '.join(text for _, text in parts)} "


def _width(parts: list[tuple[int, str]]) -> int:
    from prompt_toolkit.utils import get_cwidth

    return get_cwidth(_joined(parts))


def _cut(text: str, width: int) -> str:
    from prompt_toolkit.utils import get_cwidth

    while text and get_cwidth(text) > width:
        text = text[:-1]
    return text


def speed_of(turn: Turn, model: LanguageModel) -> str:
    """Return how fast a reply came: tokens a second once the model spoke, and the wait for the first words."""
    if not turn.tries:
        return ""
    said = [attempt for attempt in turn.tries if attempt.seconds > attempt.first]
    wait = f"first words after {turn.waited:.1f} s" if turn.waited else ""
    if not said or getattr(model, "layout", None) is None:
        return wait
    tokens = sum(model.count(attempt.said) for attempt in said)
    rate = tokens / sum(attempt.seconds - attempt.first for attempt in said)
    return f"{rate:.0f} tokens/s" + (f" · {wait}" if wait else "")
