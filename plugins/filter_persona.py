"""The ``persona_break`` filter: answers in which the character stops being the character."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from camelbell_core import hookimpl
from camelbell_core.errors import CamelBellError
from camelbell_core.records import Pair, Verdict
from camelbell_core.roles import Filter, Memory

if TYPE_CHECKING:
    from camelbell_core.character import Character

# Ways in which a model speaks of itself, of its maker or of the story instead of living in it.
_PATTERNS = (
    r"作为(?:一个|一名)?(?:AI|人工智能|语言模型|虚拟|聊天机器人|智能助手|机器人)",
    r"我(?:只)?是(?:一个|一名)?(?:AI|人工智能|语言模型|虚拟(?:的)?(?:角色|人物|助手)|聊天机器人|智能助手|程序)",
    r"(?:这部|本|该)?(?:小说|系列小说|书|电影|故事|作品|系列)(?:系列)?(?:里|中)?的(?:主角|主人公|主要人物|角色|虚构)",
    r"虚构(?:的)?(?:人物|角色|世界|故事|作品)",
    r"(?:J\s*\.?\s*K\s*\.?\s*·?\s*)?罗琳(?![·・•])",
    r"OpenAI|ChatGPT|GPT-?\d",
    r"根据(?:原著|小说|书中|电影)",
    r"\bas an? (?:AI|artificial intelligence|language model|virtual|chatbot|assistant)\b",
    r"\bI(?:'m| am) (?:just |only )?an? (?:AI|artificial intelligence|language model|chatbot|virtual|computer program)\b",
    r"\b(?:main|fictional|title) (?:character|protagonist)\b|\bprotagonist of\b",
    r"\bin the (?:novels?|book series|films?|movies?|franchise)\b|\bJ\.? ?K\.? ?Rowling\b|\bRowling\b",
)

_FIRST_PERSON = re.compile(r"我|\b(?:I|my|mine|me|myself|we|us|our)\b", re.IGNORECASE)


@dataclass(kw_only=True)
class PersonaBreak(Filter):
    """Rejects answers that speak as a machine, or of the character as an invention.

    ``patterns`` adds regular expressions of the bundle's own; ``third_person`` also rejects answers
    that speak of the character by name as of someone else and never say "I".
    """

    name: ClassVar[str] = "persona_break"
    patterns: tuple[str, ...] = ()
    third_person: bool = False

    def __post_init__(self) -> None:
        own = [_compiled(pattern) for pattern in self.patterns]
        self._rules = [re.compile("|".join(_PATTERNS), re.IGNORECASE), *own]

    def prepare(self, character: Character, memory: Memory | None = None, pairs: Sequence[Pair] = ()) -> None:
        """Learn the character's names."""
        self._names = tuple(character.config.name.values())

    def judge(self, pair: Pair) -> Verdict:
        """Look for the words of a break."""
        found = next(filter(None, (rule.search(pair.answer) for rule in self._rules)), None)
        if found:
            return Verdict(self.name, f"says {found.group()!r}")
        if self.third_person:
            named = next((name for name in self._names if name in pair.answer), "")
            if named and named not in pair.question and not _FIRST_PERSON.search(pair.answer):
                return Verdict(self.name, f"speaks of {named!r} as of someone else")
        return Verdict(self.name)


def _compiled(pattern: str) -> re.Pattern[str]:
    """Return a bundle's own pattern, ready to search; one that finds what is not there would reject everything."""
    try:
        rule = re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise CamelBellError(f"persona_break: {pattern!r} is no regular expression: {error}") from error
    if rule.search(""):
        raise CamelBellError(f"persona_break: the pattern {pattern!r} finds every answer")
    return rule


@hookimpl
def register_filters() -> list[type[Filter]]:
    """Offer the persona filter."""
    return [PersonaBreak]
