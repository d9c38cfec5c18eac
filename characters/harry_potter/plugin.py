"""Questions that take Harry for somebody else: every person whom he likes or dislikes, in both languages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from camelbell_core import hookimpl
from camelbell_core.records import Seed

if TYPE_CHECKING:
    from camelbell_core.character import Character

_ASKS = {
    "zh": ("你是[liked_person]吗？", "你是不是[disliked_person]？"),
    "en": ("Are you [liked_person]?", "Are you [disliked_person]?"),
}
_ANSWERS = {"zh": "不，我是哈利，哈利·波特。", "en": "No, I'm Harry. Harry Potter."}


@hookimpl
def load_seeds(character: Character) -> list[Seed]:
    """Return the questions, for the languages that the bundle speaks and the value lists that it has."""
    if not {"liked_person", "disliked_person"} <= character.slots.keys():
        return []
    texts = {language: asks for language, asks in _ASKS.items() if language in character.languages}
    return [Seed("taken_for_another", "self", texts, {language: _ANSWERS[language] for language in texts})]
