"""Filters that hold an answer against the canon: unknown names, and contradictions of a fact."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from camelbell_core import hookimpl
from camelbell_core.records import ROLES, Fact, Message, Pair, Verdict
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


@dataclass(kw_only=True)
class Contradiction(Filter):
    """Rejects answers against a fact: asked what a fact tells, they name another thing of the same kind.

    A fact counts as asked when a pair comes with it, or when the question is put nearly in its words
    (recall score of ``asked`` or more). The answer must then contain what the fact's ``answer`` demands, or
    admit not knowing; ``strict: false`` rejects only answers that name a wrong entity or a wrong number instead.
    """

    name: ClassVar[str] = "contradiction"
    asked: float = 0.82
    strict: bool = False

    def prepare(self, character: Character, memory: Memory | None = None, pairs: Sequence[Pair] = ()) -> None:
        """Keep the memory, to find what a question asks."""
        self._character = character
        self._memory = memory

    def judge(self, pair: Pair) -> Verdict:
        """Hold the answer against the fact that the question asks for."""
        from camelbell_core.compose import admits_ignorance

        fact = self._asked_fact(pair)
        if fact is None or not fact.answer or admits_ignorance(pair.answer, self._character, pair.language):
            return Verdict(self.name)
        canon = self._character.canon
        # What the question itself names is not asked for.
        missing = [item for item in canon.missing(fact, pair.answer) if item in canon.missing(fact, pair.question)]
        if not missing:
            return Verdict(self.name)
        wrong = self._wrong_instead(pair, fact, missing[0])
        if wrong or self.strict:
            right = self._character.canon.alternatives(missing[0])[0]
            return Verdict(self.name, f"fact {fact.id}: {right!r} is right" + (f", not {wrong!r}" if wrong else ""))
        return Verdict(self.name)

    def _asked_fact(self, pair: Pair) -> Fact | None:
        facts = self._character.canon.facts
        if pair.generator in ("canon", "dialogues", "relations"):
            return facts[pair.facts[0]] if pair.facts and pair.facts[0] in facts else None
        if self._memory is None:
            return None
        at = self._character.canon.point(pair.at) if pair.at else None
        said = [Message(ROLES[1 + place % 2], text) for place, text in enumerate(pair.history)]  # type: ignore[arg-type]
        recalls = self._memory.recall(pair.question, 1, at, said)
        return recalls[0].fact if recalls and recalls[0].score >= self.asked else None

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
    """Rejects answers that admit not knowing where nothing in the question is unknown: they teach to refuse.

    Questions of the kinds ``trap`` and ``unanswerable`` are meant to be answered so, and an answer that names words
    of the question which the canon does not hold may.
    """

    name: ClassVar[str] = "evasive"

    def prepare(self, character: Character, memory: Memory | None = None, pairs: Sequence[Pair] = ()) -> None:
        """Read the canon's names."""
        self._character = character

    def judge(self, pair: Pair) -> Verdict:
        """Look for an admission of ignorance."""
        from camelbell_core.compose import admits_ignorance, strange_names

        if pair.kind in ("trap", "unanswerable") or not admits_ignorance(pair.answer, self._character, pair.language):
            return Verdict(self.name)
        if strange_names(self._character, pair.question) or self._told(pair) or self._names_the_unknown(pair):
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


@hookimpl
def register_filters() -> list[type[Filter]]:
    """Offer the filters against the canon."""
    return [UnknownNames, Contradiction, Evasive]
