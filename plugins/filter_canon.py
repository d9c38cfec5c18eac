"""Filters that hold an answer against the canon: unknown names, and contradictions of a fact."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from camelbell_core import hookimpl
from camelbell_core.records import Fact, Pair, Recall, Verdict
from camelbell_core.roles import Filter, Memory
from camelbell_core.text import mentions

if TYPE_CHECKING:
    from camelbell_core.character import Character

_NUMBER = re.compile(r"\d+")


@dataclass(kw_only=True)
class UnknownNames(Filter):
    """Rejects answers that name what the canon does not know, or that play along with a question that does.

    A question about someone unknown passes when the answer admits not knowing. ``grounded`` rejects, too,
    names of the canon that stand neither in the question nor in the facts that the answer rests on: that is
    the rule for a chat, where the facts used are known.
    """

    name: ClassVar[str] = "unknown_names"
    grounded: bool = False

    def prepare(self, character: Character, memory: Memory | None = None, pairs: Sequence[Pair] = ()) -> None:
        """Read the canon's names."""
        self._character = character

    def judge(self, pair: Pair) -> Verdict:
        """Look for names in question and answer."""
        from camelbell_core.compose import admits_ignorance, strange_names

        character = self._character
        asked = strange_names(character, pair.question)
        if asked and not admits_ignorance(pair.answer, character, pair.language):
            return Verdict(
                self.name, f"the question names {asked[0]!r}, whom the canon does not know; the answer plays along"
            )
        said = [name for name in strange_names(character, pair.answer) if not mentions(pair.question, name)]
        if said:
            return Verdict(self.name, f"names {said[0]!r}, which the canon does not know")
        if self.grounded and (loose := self._ungrounded(pair)):
            return Verdict(self.name, f"names {loose!r}, which neither the question nor the facts name")
        return Verdict(self.name)

    def _ungrounded(self, pair: Pair) -> str:
        names, facts = self._character.canon.names, self._character.canon.facts
        allowed = {*names.ids(pair.question), self._character.config.entity}
        for fact in (facts[f] for f in pair.facts if f in facts):
            allowed.update(fact.about)
            for text in (*fact.text.values(), *fact.voice.values()):
                allowed.update(names.ids(text))
        for mention in names.find(pair.answer):
            owners = {m.entity for m in names.find(pair.answer) if (m.start, m.end) == (mention.start, mention.end)}
            if not owners & allowed:
                return pair.answer[mention.start : mention.end]
        return ""


def recalled(character: Character, memory: Memory | None, pair: Pair) -> list[Recall]:
    """Return the likeliest facts for the question of a pair, at its story time."""
    if memory is None:
        return []
    at = character.canon.point(pair.at) if pair.at else None
    return memory.recall(pair.question, 6, at, pair.said)


@dataclass(kw_only=True)
class Contradiction(Filter):
    """Rejects answers against a fact: asked what a fact tells, they name another thing of the same kind.

    A fact counts as asked when a pair comes with it, or when it comes to mind with a score of ``asked`` or more. An
    answer that lacks what the fact's ``answer`` demands is rejected if it names a wrong entity or a wrong number
    instead. From a score of ``sure`` on it is rejected in any case, as is one that only says again what the question
    names, where the fact names more. Facts that fit up to ``nearly`` as well count too: an answer that agrees with one
    of them, or holds part of what one demands, is right. ``strict`` takes every fact as sure. To admit not knowing is
    never against a fact.
    """

    name: ClassVar[str] = "contradiction"
    asked: float = 0.6
    sure: float = 0.75
    nearly: float = 0.2
    strict: bool = False

    def prepare(self, character: Character, memory: Memory | None = None, pairs: Sequence[Pair] = ()) -> None:
        """Keep the memory, to find what a question asks."""
        self._character = character
        self._memory = memory

    def judge(self, pair: Pair) -> Verdict:
        """Hold the answer against the fact that the question asks for."""
        from camelbell_core.compose import admits_ignorance

        asked = self._asked_facts(pair)
        if not asked or not asked[0][0].answer or admits_ignorance(pair.answer, self._character, pair.language):
            return Verdict(self.name)
        reasons = [self._against(pair, fact, score, len(asked) == 1) for fact, score in asked]
        # What agrees with one of several facts that fit alike is right.
        return Verdict(self.name, reasons[0] if all(reasons) else "")

    def _against(self, pair: Pair, fact: Fact, score: float, alone: bool) -> str:
        """Return why an answer is not what a fact demands: all of it where the fact comes to mind ``alone``."""
        canon = self._character.canon
        # What the question itself names is not asked for.
        asked = canon.missing(fact, pair.question)
        missing = [item for item in canon.missing(fact, pair.answer) if item in asked]
        if missing:
            wrong = self._wrong_instead(pair, fact, missing[0])
            # Of several facts the one that is asked for tells more: "Are your eyes blue?" not whose eyes they are like.
            lacking = alone or len(missing) == len(asked)
            if wrong or self.strict or (score >= self.sure and lacking):
                right = canon.alternatives(missing[0])[0]
                return f"fact {fact.id}: {right!r} is right" + (f", not {wrong!r}" if wrong else "")
        elif score >= self.sure and self._says_nothing_new(pair, fact):
            return f"fact {fact.id}: says again what the question names"
        return ""

    def _says_nothing_new(self, pair: Pair, fact: Fact) -> bool:
        """Tell whether the question holds all that the fact's answer demands, and this answer nothing else of it.

        Such a question asks for the other side: "Whom did Fleur marry?" of a fact that is told as "Fleur."
        """
        canon = self._character.canon
        names = canon.names
        if len(canon.missing(fact, pair.question)) == len(fact.answer):
            return False
        asked = {*names.ids(pair.question), self._character.config.entity}
        told = set(fact.about).union(*(names.ids(text) for text in fact.text.values())) - asked
        return bool(told) and not told & set(names.ids(pair.answer))

    def _asked_facts(self, pair: Pair) -> list[tuple[Fact, float]]:
        """Return the facts that a question may ask for, with their scores: the likeliest, and those nearly as likely."""
        facts = self._character.canon.facts
        if pair.generator in ("canon", "dialogues", "relations"):
            return [(facts[pair.facts[0]], 0.0)] if pair.facts and pair.facts[0] in facts else []
        recalls = recalled(self._character, self._memory, pair)
        if not recalls or recalls[0].score < self.asked:
            return []
        return [(r.fact, r.score) for r in recalls if r.score >= recalls[0].score - self.nearly]

    def _wrong_instead(self, pair: Pair, fact: Fact, item: str) -> str:
        """Return the entity of the right one's type, or the number, that stands in its place."""
        canon = self._character.canon
        right = canon.entities.get(item)
        if right is None:
            numbers = _NUMBER.findall(pair.answer) if _NUMBER.search(item) else []
            return next((number for number in numbers if not mentions(pair.question, number)), "")
        harmless = {*canon.names.ids(pair.question), *fact.about, *fact.answer, self._character.config.entity}
        for mention in canon.names.find(pair.answer):
            entity = canon.entities[mention.entity]
            if entity.type == right.type and entity.id not in harmless:
                return pair.answer[mention.start : mention.end]
        return ""


@dataclass(kw_only=True)
class Evasive(Filter):
    """Rejects answers that admit not knowing where a fact answers, and nothing in the question is unknown.

    A fact answers if it comes to mind with a score of ``known`` or more. Questions of the kinds ``trap`` and
    ``unanswerable`` are meant to be answered so, and an answer that names words of the question which the canon
    does not hold may.
    """

    name: ClassVar[str] = "evasive"
    known: float = 0.5

    def prepare(self, character: Character, memory: Memory | None = None, pairs: Sequence[Pair] = ()) -> None:
        """Keep the memory, to find what is known."""
        self._character = character
        self._memory = memory

    def judge(self, pair: Pair) -> Verdict:
        """Look for an admission of ignorance."""
        from camelbell_core.compose import admits_ignorance, strange_names

        if pair.kind in ("trap", "unanswerable") or not admits_ignorance(pair.answer, self._character, pair.language):
            return Verdict(self.name)
        if strange_names(self._character, pair.question) or self._told(pair) or self._names_the_unknown(pair):
            return Verdict(self.name)
        recalls = recalled(self._character, self._memory, pair)
        if self._memory is not None and (not recalls or recalls[0].score < self.known):
            return Verdict(self.name)
        return Verdict(self.name, "admits not knowing, though the question names nothing unknown")

    def _names_the_unknown(self, pair: Pair) -> bool:
        """Tell whether the answer takes up words of the question that stand nowhere in the canon."""
        from difflib import SequenceMatcher

        from camelbell_core.compose import IGNORANCE
        from camelbell_core.names import stands_in

        question, answer = pair.question.casefold(), IGNORANCE.sub(" ", pair.answer).casefold()
        place = SequenceMatcher(None, question, answer, autojunk=False).find_longest_match()
        shared = question[place.a : place.a + place.size].strip(" ?？.。,，!！")
        least = 2 if pair.language == "zh" else 4  # characters
        return len(shared) >= least and not stands_in(shared, self._character.canon.vocabulary)

    def _told(self, pair: Pair) -> bool:
        """Tell whether a fact that the answer rests on tells of not knowing itself."""
        from camelbell_core.compose import admits_ignorance

        facts = self._character.canon.facts
        told = (facts[f].told(pair.language) for f in pair.facts if f in facts)
        return any(admits_ignorance(text, self._character, pair.language) for text in told)


@dataclass(kw_only=True)
class Unsupported(Filter):
    """Rejects answers that tell of people and things where no fact comes to mind with a score of ``least`` or more.

    What the question names, and the character itself, may be spoken of; so may everything in small talk.
    """

    name: ClassVar[str] = "unsupported"
    least: float = 0.2

    def prepare(self, character: Character, memory: Memory | None = None, pairs: Sequence[Pair] = ()) -> None:
        """Keep the memory, to find what is known."""
        self._character = character
        self._memory = memory

    def judge(self, pair: Pair) -> Verdict:
        """Look for names in an answer that rests on nothing."""
        from camelbell_core.compose import admits_ignorance

        if self._memory is None or admits_ignorance(pair.answer, self._character, pair.language):
            return Verdict(self.name)
        names = self._character.canon.names
        told = set(names.ids(pair.answer)) - set(names.ids(pair.question)) - {self._character.config.entity}
        if not told and not _NUMBER.search(pair.answer):
            return Verdict(self.name)
        recalls = recalled(self._character, self._memory, pair)
        if recalls and recalls[0].score >= self.least:
            return Verdict(self.name)
        return Verdict(self.name, "no fact that comes to mind fits the question")


@hookimpl
def register_filters() -> list[type[Filter]]:
    """Offer the filters against the canon."""
    return [UnknownNames, Contradiction, Evasive, Unsupported]
