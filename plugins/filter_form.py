"""Filters on the form of an answer: length, language, repetition."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar
from unicodedata import category

from camelbell_core import hookimpl
from camelbell_core.records import Pair, Verdict
from camelbell_core.roles import Filter
from camelbell_core.text import CJK, bigrams, printable


@dataclass(kw_only=True)
class Length(Filter):
    """Rejects answers that are empty, too short or too long; counted in characters."""

    name: ClassVar[str] = "length"
    least: int = 2
    most: int = 800

    def judge(self, pair: Pair) -> Verdict:
        """Count the characters that can be seen, and the blanks between them."""
        length = len("".join(char for char in printable(pair.answer) if category(char) != "Cf").strip())
        if length < self.least:
            return Verdict(self.name, f"{length} characters, at least {self.least} are asked for")
        if length > self.most:
            return Verdict(self.name, f"{length} characters, at most {self.most} are allowed")
        return Verdict(self.name)


@dataclass(kw_only=True)
class Language(Filter):
    """Rejects answers in another language than the question, and such with broken characters.

    ``share`` is how much of a Chinese answer's letters must be Chinese; foreign names and spells may
    stand in it. An English answer holds no Chinese.
    """

    name: ClassVar[str] = "language"
    share: float = 0.5

    def judge(self, pair: Pair) -> Verdict:
        """Look at the script of the letters."""
        if "\ufffd" in pair.answer:
            return Verdict(self.name, "holds a broken character (U+FFFD)")
        letters = sum(char.isalpha() for char in pair.answer)
        chinese = len(CJK.findall(pair.answer))
        if pair.language == "zh" and letters and chinese / letters < self.share:
            return Verdict(self.name, f"{chinese} of {letters} letters are Chinese, the question is in Chinese")
        if pair.language == "en" and chinese:
            return Verdict(self.name, f"{chinese} letters are Chinese, the question is in English")
        return Verdict(self.name)


@dataclass(kw_only=True)
class Repetition(Filter):
    """Rejects answers that say one thing over and over: three words or four Chinese characters more than ``most`` times.

    The repeats must make up ``share`` of the answer, 0 to 1: a name may come back in a long story.
    """

    name: ClassVar[str] = "repetition"
    most: int = 4
    share: float = 0.2

    def judge(self, pair: Pair) -> Verdict:
        """Count runs of four Chinese characters or of three words."""
        tokens = bigrams(pair.answer)
        grams = Counter(zip(tokens, tokens[1:], tokens[2:], strict=False))
        gram, count = max(grams.items(), key=lambda item: item[1], default=(("",), 0))
        if count > self.most and count * len(gram) >= self.share * len(tokens):
            return Verdict(self.name, f"says {_spell(gram)!r} {count} times")
        return Verdict(self.name)


def _spell(gram: Sequence[str]) -> str:
    """Return neighbouring bigrams as the text that they come from: Chinese ones overlap by a character."""
    text = gram[0]
    for before, token in pairwise(gram):
        overlaps = CJK.match(token) and len(before) == len(token) == 2 and before[1] == token[0]
        text += token[1] if overlaps else f" {token}"
    return text


@hookimpl
def register_filters() -> list[type[Filter]]:
    """Offer the filters on form."""
    return [Length, Language, Repetition]
