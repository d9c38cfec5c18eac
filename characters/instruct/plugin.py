"""What the YAML of the assistant leaves to code: its persona, and who it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from camelbell_core import hookimpl
from camelbell_core.records import Seed

if TYPE_CHECKING:
    from camelbell_core.character import Character

# Assistants that people may take this one for.
_OTHERS = ("Siri", "Alexa", "Gemini", "Claude", "Copilot", "文心一言", "通义千问", "小爱同学", "DeepSeek")
_ASKS = {
    "zh": ("你是{other}吗？", "你就是{other}吧？", "你和{other}是同一个吗？"),
    "en": ("Are you {other}?", "You're {other}, aren't you?", "Are you the same as {other}?"),
}
_ANSWERS = {
    "zh": "不是，我是{name}，{maker}做的助手，跟别的助手不是一回事。",
    "en": "No, I'm {name}, an assistant made by {maker}; I'm not any of the others.",
}
_PERSONAS = {
    "zh": "我叫{name}，是{maker}做的助手，用途是{purpose}。我诚实，不知道的就说不知道。",
    "en": "I am {name}, an assistant made by {maker} for {purpose}. I am honest and admit what I don't know.",
}


@hookimpl
def load_seeds(character: Character) -> list[Seed]:
    """Return the questions whether the assistant is another one, with the answer of the YAML's values."""
    languages = [language for language in character.languages if language in _ASKS]
    texts = {
        language: tuple(ask.replace("{other}", other) for ask in _ASKS[language] for other in _OTHERS)
        for language in languages
    }
    answers = {language: character.fill(_ANSWERS[language], language) for language in languages}
    return [Seed("another_assistant", "identity", texts, answers)] if languages else []


@hookimpl
def build_persona(character: Character, language: str) -> str | None:
    """Return the persona made of the YAML's values, unless the YAML has one of its own."""
    return None if character.config.persona else _PERSONAS.get(language, _PERSONAS["en"])
