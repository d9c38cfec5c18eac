"""Answers made of facts alone, in the character's own telling: nothing in them is invented.

The offline teacher answers with them, and a chat falls back on them when the model's reply fails
the guard.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from camelbell_core.character import Character, Voice
from camelbell_core.first_person import in_first_person
from camelbell_core.names import unknown_names
from camelbell_core.records import Fact, Recall

# From this recall score on, a probability, a fact is taken to answer the question.
ANSWERS = 0.5
_DEFAULT_VOICE = {
    "zh": Voice(
        unknown=["这个我不知道。", "我不清楚这件事。", "说实话，这个我答不上来。"],
        unknown_name=["我从没听说过{name}。", "{name}？我不知道这是谁，也不知道这是什么。"],
    ),
    "en": Voice(
        unknown=["I don't know that.", "I'm not sure about that.", "Honestly, I have no idea."],
        unknown_name=["I've never heard of {name}.", "{name}? I don't know who or what that is."],
    ),
}


@dataclass(frozen=True, slots=True)
class Composed:
    """An answer and the facts that it rests on; without facts it admits not knowing."""

    text: str
    facts: tuple[Fact, ...] = ()


def voice_of(character: Character, language: str) -> Voice:
    """Return how the character speaks: the YAML's voice, else a plain one."""
    return character.config.voice.get(language) or _DEFAULT_VOICE.get(language, _DEFAULT_VOICE["en"])


def compose(
    character: Character,
    language: str,
    question: str,
    recalls: Sequence[Recall],
    rng: Random | None = None,
    answer_facts: Sequence[Fact] = (),
) -> Composed:
    """Return the answer that the facts give, or an admission of ignorance.

    ``answer_facts`` are facts known to answer the question; without them the likeliest recall
    answers if it fits well enough. ``rng`` varies the wording; without it the first wording is taken.
    """
    voice = voice_of(character, language)
    if not answer_facts:
        strangers = strange_names(character, question)
        if strangers:
            texts = voice.unknown_name or voice.unknown
            return Composed(_pick(texts, rng).replace("{name}", strangers[0]))
    facts = tuple(answer_facts) or tuple(r.fact for r in recalls[:1] if r.score >= ANSWERS)
    if facts:
        if not answer_facts:
            return Composed(recalls[0].answer or _tell(character, language, question, facts[0]), facts)
        return Composed(_join([fact.told(language) for fact in facts], language), facts)
    related = _about_the_same(character, question, recalls)
    if related and voice.about:
        told = related[0].told(language)
        return Composed(_pick(voice.about, rng).replace("{fact}", told), (related[0],))
    return Composed(_pick(voice.unknown, rng))


def _tell(character: Character, language: str, question: str, fact: Fact) -> str:
    """Return the telling of a fact that says most of what the question does not.

    "Fleur." answers whom Bill married, not who married Fleur. The character's own telling comes first, then the
    answers of the bundle's dialogues, then the statement, put in the first person.
    """
    names, me = character.canon.names, character.config.entity
    own = [q.answer for q in character.answers_by_fact.get(fact.id, ()) if q.language == language]
    stated = in_first_person(fact.text.get(language, ""), language, names, me)
    tellings = [fact.told(language), *own, *([stated] if stated else [])]
    asked = {*names.ids(question), me}
    wanted = [item for item in fact.answer if item in character.canon.missing(fact, question)]

    def worth(telling: str) -> tuple[int, int]:
        lacking = character.canon.missing(fact, telling)
        return sum(item not in lacking for item in wanted), len(set(names.ids(telling)) - asked)

    best = max(map(worth, tellings))
    if wanted and worth(tellings[0])[0] == best[0]:
        return tellings[0]
    if not wanted and worth(tellings[0])[1]:
        return tellings[0]
    return next(telling for telling in tellings if worth(telling) == best)


def strange_names(character: Character, text: str) -> list[str]:
    """Return the names in a text that the canon does not know, if there is a canon to tell by."""
    canon = character.canon
    return unknown_names(text, canon.names, canon.vocabulary) if canon.entities else []


def admits_ignorance(text: str, character: Character, language: str) -> bool:
    """Tell whether an answer says that the character does not know."""
    voice = voice_of(character, language)
    stems = [part for known in (*voice.unknown, *voice.unknown_name) for part in known.split("{name}")]
    folded = re.sub(r"\s+", " ", text).strip().casefold()
    own = [re.sub(r"\s+", " ", stem).strip(" ，。,.?？！!").casefold() for stem in stems]
    return any(stem in folded for stem in own if len(stem) >= 4) or bool(IGNORANCE.search(text))


IGNORANCE = re.compile(
    r"(?:从|还|也|并)?(?:没|没有|未)(?:曾|有)?(?:听说|听过|见过|听人说)|不(?:认识|知道|清楚|了解|太清楚|太了解|记得)|答不上来|说不上来|"
    r"\b(?:never (?:heard|met|seen|come across)|(?:do|did)(?:n['’]t| not) (?:know|recall|remember)|not sure|no idea|"
    r"can(?:['’]t|not) (?:say|tell)|(?:have|has)n['’]t heard|not familiar|unfamiliar)\b",
    re.IGNORECASE,
)


def _about_the_same(character: Character, question: str, recalls: Sequence[Recall]) -> list[Fact]:
    named = set(character.canon.names.ids(question)) - {character.config.entity}
    return [recall.fact for recall in recalls if named & set(recall.fact.about[:1])]


def _pick(texts: Sequence[str], rng: Random | None) -> str:
    return rng.choice(list(texts)) if rng else texts[0]


def _join(texts: Sequence[str], language: str) -> str:
    return ("" if language == "zh" else " ").join(texts)
