"""Who is what to whom: pairs of a canon, spelled out as facts in both directions.

A canon file lists pairs of roles, and the words of each role::

    roles:
      mother: {zh: [妈妈, 母亲], en: [mother, mum]}
      daughter: {zh: [女儿], en: [daughter]}
    asks:  # ways to ask who is a role of {b}, beside those that fit every role
      mother: {zh: [谁生了{b}？], en: [Who gave birth to {b}?]}
    relations:
      - {mother: molly_weasley, daughter: ginny_weasley}
      - {friend: [harry_potter, ron_weasley], known_from: "1-6"}

Each pair gives one fact that is told from both sides ("Molly is Ginny's mother; Ginny is Molly's daughter"), with the
usual ways to ask for either side, and questions that are right or wrong about it, with their answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from types import MappingProxyType

from camelbell_core.names import NameIndex
from camelbell_core.records import Entity, Fact, Point, Question

# {a} is {b}'s {role}.
_TELL = {
    "zh": ("{a}是{b}的{role}。", "{b}的{role}就是{a}。"),
    "en": ("{a} is {b's} {role}.", "{b's} {role} is {a}."),
}
_WHO = {
    "zh": ("{b}的{role}是谁？", "{b}的{role}叫什么名字？", "谁是{b}的{role}？"),
    "en": ("Who is {b's} {role}?", "What is the name of {b's} {role}?"),
}
_WHAT = {
    "zh": ("{a}是{b}的什么人？", "{a}跟{b}是什么关系？", "{b}和{a}之间是什么关系？"),
    "en": ("Who is {a} to {b}?", "What is {a} to {b}?", "How is {a} related to {b}?", "How are {b} and {a} connected?"),
}
_IF = {
    "zh": ("{a}是{b}的{role}吗？", "{a}是不是{b}的{role}？", "{b}的{role}是{a}，对吧？"),
    "en": ("Is {a} {b's} {role}?", "{a} is {b's} {role}, right?", "Isn't {a} {b's} {role}?"),
}
_YES = {"zh": ("对，", "是的，", "没错，"), "en": ("Yes, ", "That's right, ", "Yes. ")}
_NO = {"zh": ("不是，", "不对，", "没有的事，"), "en": ("No, ", "Not quite: ", "No. ")}
# How the character is called where it speaks itself, and where it is spoken to: name, owner.
_SPEAKS = {"zh": ("我", "我"), "en": ("I", "my")}
_SPOKEN_TO = {"zh": ("你", "你"), "en": ("you", "your")}
_VERBS = (
    (r"I is ", "I'm "), (" is I.", " is me."), ("Is you ", "Are you "), ("Isn't you ", "Aren't you "), ("you is ", "you are "),
    ("is you to ", "are you to "), ("is you related", "are you related"),
)  # fmt: skip
_OF_YOU = ((" is you?", " are you?"),)
# Kinship words that a mistaken question may put in the place of another: nobody is two of them to one person.
_KIN = (
    "mother father son daughter brother sister husband wife uncle aunt nephew niece cousin grandfather grandmother "
    "godfather godson"
).split()
# Words that leave open which of those it is.
_GENERAL = (
    "relative parent child sibling twin spouse grandparent grandchild godparent godchild ancestor descendant"
).split()


@dataclass(frozen=True, slots=True)
class Relation:
    """A pair: ``first`` is ``role`` of ``second``, and the other way round ``second`` is ``inverse`` of ``first``.

    ``words`` holds, by language, the words for the two roles where this pair has its own; ``points`` the story
    times of ``Fact``.
    """

    role: str
    first: str
    inverse: str
    second: str
    words: Mapping[str, Sequence[str]] = field(default_factory=dict)
    points: Mapping[str, Point | None] = field(default_factory=dict)

    def turned(self) -> Relation:
        """Return the pair as seen from the other side."""
        words = {language: tuple(reversed(pair)) for language, pair in self.words.items()}
        return Relation(self.inverse, self.second, self.role, self.first, words, self.points)


class Speller:
    """Spells pairs out in the languages of a character, who is ``me``."""

    def __init__(
        self, roles: Mapping[str, Mapping[str, Sequence[str]]], entities: Mapping[str, Entity],
        languages: Sequence[str], me: str, names: NameIndex, asks: Mapping[str, Mapping[str, Sequence[str]]] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        self._names = names
        self._asks = asks
        self._roles = roles
        self._entities = entities
        self._languages = [language for language in languages if language in _TELL]
        self._me = me

    def spell(self, relations: Sequence[Relation]) -> tuple[list[Fact], list[Question]]:
        """Return a fact for each pair, and questions about its two sides that have answers of their own."""
        if not self._languages:
            return [], []
        views = [view for relation in relations for view in (relation, relation.turned())]
        family = _families(views)
        known: dict[tuple[str, str], list[Relation]] = {}
        bearers: dict[str, list[str]] = {}
        for view in views:
            known.setdefault((view.first, view.second), []).append(view)
            bearers.setdefault(view.role, []).append(view.first)
        facts: dict[str, Fact] = {}
        questions: list[Question] = []
        seen: set[tuple[str, str, str]] = set()
        for number, view in enumerate(views):
            if number % 2 == 0:  # a pair's two views follow each other, and share its fact
                fact = self._fact(view)
                facts.setdefault(fact.id, fact)
            if (view.role, view.first, view.second) in seen:
                continue
            seen.add((view.role, view.first, view.second))
            if fact.true_until and not fact.holds_at(_asked_at(fact)):
                continue  # it was never known and true at once
            questions += self._sure(view, fact)
            # Who else of a family is an uncle or a cousin, no list of pairs tells; but one has one father and one mother.
            strangers = sorted(
                e for e in set(bearers[view.role])
                if e not in (view.first, view.second, self._me)
                and (family.get(e) != family.get(view.second) or view.role in ("father", "mother"))
                and all(
                    self._untrue(view.role, self._words(view, language)[0], language, known.get((e, view.second), ()))
                    for language in self._languages
                )
            )  # fmt: skip
            ties = known[view.first, view.second]
            far_kin = family.get(view.first, view.first) == family.get(view.second, view.second)
            kin = [] if far_kin and not any(_is_kin(tie.role) for tie in ties) else _KIN
            questions += self._mistaken(view, fact, strangers, kin, ties)
        return list(facts.values()), questions

    def _fact(self, view: Relation) -> Fact:
        ident = f"r-{view.first}-{view.role}-{view.second}".replace("_", "-")
        rng = Random(ident)
        text, voice, ask, keys = {}, {}, {}, []
        both_sides = (view, view.turned())
        for language in self._languages:
            words = [self._words(side, language) for side in both_sides]
            # Where both are the same to each other, one side tells it all.
            told = both_sides if words[0][0] != words[1][0] else both_sides[:1]
            tells = _TELL[language] if len(told) == 1 and self._me not in (view.first, view.second) else ()
            tell = rng.choice(tells or _TELL[language][:1])
            plain = [
                self._say(_TELL[language][0], s, w[0], language, "", i == 0)
                for i, (s, w) in enumerate(zip(told, words, strict=False))
            ]
            said = [
                self._say(tell, s, w[0], language, "me", i == 0)
                for i, (s, w) in enumerate(zip(told, words, strict=False))
            ]
            text[language], voice[language] = _joined(plain, language), _joined(said, language)
            keys += [word for own in words for word in own]
            asks = [
                self._say(template, side, word, language, "you")
                for side, own in zip(both_sides, words, strict=True)
                for templates, some in ((_WHO, own), (_WHAT, own[:1]))
                for template in templates[language]
                for word in some
            ]
            asks += [
                self._say(template, side, "", language, "you")
                for side in both_sides
                for template in self._asks.get(side.role, {}).get(language, ())
            ]
            ask[language] = tuple(dict.fromkeys(asks))
        people = [entity for entity in (view.first, view.second) if entity != self._me]
        return Fact(
            id=ident,
            about=tuple(sorted((view.first, view.second), key=lambda e: e == self._me)),
            text=text,
            voice=voice,
            ask=ask,
            answer=(*people, "|".join(dict.fromkeys(keys))),
            relation=view.role,
            **view.points,
        )

    def _sure(self, view: Relation, fact: Fact) -> Iterator[Question]:
        """Yield a question that has it right, in each language."""
        rng = Random(f"{view.first}-{view.role}-{view.second}:sure")
        for language in self._languages:
            word = rng.choice(self._words(view, language))
            asked = self._say(rng.choice(_IF[language]), view, word, language, "you")
            yield self._question(asked, language, "relation", fact, rng.choice(_YES[language]))

    def _mistaken(
        self, view: Relation, fact: Fact, strangers: Sequence[str], kin: Sequence[str], known: Sequence[Relation]
    ) -> Iterator[Question]:
        """Yield a question that takes another person, or another tie, for the right one, in each language."""
        rng = Random(f"{view.first}-{view.role}-{view.second}:mistaken")
        ties = [role for role in kin if role in self._roles]
        for language in self._languages:
            words = self._words(view, language)
            usual = {tie: (self._roles[tie].get(language) or [tie])[0] for tie in ties}
            ties_here = [tie for tie, word in usual.items() if self._untrue(tie, word, language, known)]
            # Who is no kin is sure; who else is a friend or a colleague, no list of pairs tells.
            if strangers and _is_kin(view.role) and (rng.random() < 0.5 or not ties_here):
                other = Relation(view.role, rng.choice(strangers), view.inverse, view.second, view.words)
                asked = self._say(rng.choice(_IF[language]), other, words[0], language, "you")
            elif ties_here:
                wrong = usual[rng.choice(ties_here)]
                asked = self._say(rng.choice(_IF[language]), view, wrong, language, "you")
            else:
                continue
            yield self._question(asked, language, "false_premise", fact, rng.choice(_NO[language]))

    def _untrue(self, role: str, word: str, language: str, known: Sequence[Relation]) -> bool:
        """Tell whether a role, under this word, is none of the ties that two are known to have."""
        return all(
            _kind(role) != _kind(tie.role) and not any(_alike(word, own) for own in self._words(tie, language))
            for tie in known
        )

    def _question(self, asked: str, language: str, kind: str, fact: Fact, opening: str) -> Question:
        at = str(_asked_at(fact)) if fact.true_until else ""
        answer = opening + fact.voice[language]
        return Question(asked, language, kind, "relations", fact.id, {}, (fact.id,), answer, at)

    def _words(self, view: Relation, language: str) -> list[str]:
        """Return the words for what the first is to the second, the usual one first.

        Where a bundle lacks a word or a name, which is told as a mistake, the role's or the entity's own stands in.
        """
        return list(view.words.get(language, ())[:1] or self._roles[view.role].get(language) or [view.role])

    def _say(self, template: str, view: Relation, word: str, language: str, person: str, begins: bool = True) -> str:
        """Fill a template; the character is called by name, or I ("me"), or you ("you").

        ``begins``: it begins a sentence, with a capital.
        """
        pronouns = {"me": _SPEAKS, "you": _SPOKEN_TO}.get(person)

        def name(entity: str, owner: bool = False) -> str:
            if pronouns and entity == self._me:
                return pronouns[language][owner]
            full = self._entities[entity].names.get(language) or entity
            plain = self._short(full, entity) if person else full
            return plain if not owner or language == "zh" else f"{plain}'s"

        text = template.replace("{b's}", name(view.second, True)).replace("{role}", word)
        text = text.replace("{a}", name(view.first)).replace("{b}", name(view.second))
        if language == "en" and pronouns:
            for wrong, right in _VERBS if view.first == self._me else _OF_YOU if view.second == self._me else ():
                text = text.replace(wrong, right)
        return text[:1].upper() + text[1:] if begins else text

    def _short(self, full: str, entity: str) -> str:
        """Return the first name, as people use it, where no other entity bears it."""
        first = re.split(r"[·・ ]", full)[0]
        return first if len(first) > 1 and self._names.owners(first) == [entity] else full


def _joined(sentences: Sequence[str], language: str) -> str:
    """Return sentences as one."""
    link = "，" if language == "zh" else "; "
    first, *rest = (sentence.rstrip("。.") for sentence in sentences)
    return link.join([first, *rest]) + ("。" if language == "zh" else ".")


def _asked_at(fact: Fact) -> Point:
    """Return the first story time at which a fact is known and true, which is when one that ends is asked for."""
    return max((point for point in (fact.learned, fact.true_from) if point), default=Point(1, 1))


def _kind(role: str) -> str:
    """Return what sort of tie a role is: brothers and sisters of any age are one sort, as are cousins."""
    parts = [] if role.endswith("in_law") else role.split("_")
    kin = next((part for part in parts if part in _KIN), role)
    return "sibling" if kin in ("brother", "sister") else kin


def _is_kin(role: str) -> bool:
    return any(part.endswith(word) for part in role.split("_") for word in _KIN)


def _is_general(role: str) -> bool:
    return any(part.removesuffix("s") in _GENERAL for part in role.split("_"))


def _families(views: Sequence[Relation]) -> dict[str, str]:
    """Return the family of each who is kin of somebody, by blood or marriage, however far."""
    family: dict[str, str] = {}
    for view in views:
        if _is_kin(view.role) or _is_general(view.role):
            one, other = (family.get(entity, entity) for entity in (view.first, view.second))
            family |= {view.first: one, view.second: one}
            family = {entity: one if name == other else name for entity, name in family.items()}
    return family


def _alike(one: str, other: str) -> bool:
    return one in other or other in one
