"""Who can be talked to: characters by name, each at any time of its story, all ready in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import sha256
from time import time

from camelbell_core.checked_yaml import suggest
from camelbell_core.errors import CamelBellError
from camelbell_core.records import Fact, Point
from camelbell_core.session import Session, Settings, Turn
from camelbell_plugins.frontend_serve.conversation import Conversation
from camelbell_plugins.frontend_serve.wire import About, ChatRequest, Knowledge, Model, ModelList, Refusal, UsedFact

_COLD = 0.01  # a temperature below it is greedy: divided by it, a model's numbers would not be finite
_LATELY = 4  # facts that a story time shows as learned last


class Speakers:
    """Opens a session of its own for each request; model, memory and guard are those of the sessions given.

    ``listed`` are names of models, a character's perhaps followed by ``@`` and a story time; ``most`` bounds the
    tokens of a reply.
    """

    def __init__(self, sessions: Iterable[Session], listed: Sequence[str] = (), most: int = 512) -> None:
        self._sessions = {session.character.name: session for session in sessions}
        self._listed = list(dict.fromkeys(listed or self._sessions))
        self._most = most
        self._created = int(time())
        for name in self._listed:
            self.find(name)
        self.knowledge = lru_cache(maxsize=1024)(self._knowledge)

    @property
    def characters(self) -> dict[str, Session]:
        """The sessions that were given, by the name of the character."""
        return self._sessions

    @property
    def parallel(self) -> int:
        """How many replies can be made at a time: what the least able base can."""
        return min(max(1, session.model.parallel) for session in self._sessions.values())

    def find(self, name: str) -> tuple[Session, Point | None]:
        """Return the character and the story time that a model's name means, or refuse it with the names there are."""
        who, marked, when = name.partition("@")
        session = self._sessions.get(who)
        if session is None:
            known = ", ".join(self._listed)
            what = f"there is no model {name[:80]!r}{suggest(who, self._sessions)}; there are: {known}"
            raise Refusal(404, what, "model_not_found", "model")
        if not marked:
            return session, session.settings.at
        return session, _point(session, when)

    def open(self, request: ChatRequest, conversation: Conversation) -> Session:
        """Return a session of the character asked for that remembers the conversation."""
        prototype, at = self.find(request.model)
        usual = prototype.settings
        window = getattr(prototype.model, "window", None)
        most = min(self._most, window // 4) if window else self._most
        heat = usual.temperature if request.temperature is None else request.temperature
        settings = Settings(
            max_tokens=min(request.tokens or usual.max_tokens, most),
            temperature=heat if heat >= _COLD else 0.0,
            at=at,
            turns=usual.turns,
        )
        session = Session(
            prototype.character,
            prototype.model.with_sampling(request.top_p, request.seed),
            prototype.memory,
            prototype.guard,
            prototype.personas,
            settings,
        )
        replayed = conversation.turns[-settings.turns :] if settings.turns else ()
        session.turns = [Turn(question, "", answer) for question, answer in replayed]
        return session

    def models(self) -> ModelList:
        """Return all that are listed."""
        return ModelList(data=[self.model(name) for name in self._listed])

    def model(self, name: str) -> Model:
        """Return one of them, at any story time."""
        session, at = self.find(name)
        character, canon = session.character, session.character.canon
        greeting = {lang: character.fill(text, lang).strip() for lang, text in character.config.greeting.items()}
        about = About(
            character=character.name,
            title=character.config.name,
            description=character.config.description,
            languages=character.languages,
            greeting=greeting,
            story_time=str(at) if at else None,
            chapters=list(canon.chapters),
            part=canon.parts,
            base=session.model.name,
            adapter=bool(session.model.adapter),
        )
        return Model(id=name, created=self._created, camelbell=about)

    def _knowledge(self, name: str, when: str, language: str) -> Knowledge:
        session = self.find(name)[0]
        at = None if when == "end" else _point(session, when)
        facts = session.character.canon.facts.values()
        known = [fact for fact in facts if fact.holds_at(at)]
        dated = [
            (learned, fact.id, fact) for fact in known if (learned := fact.known_from or fact.true_from or fact.source)
        ]
        lately = sorted(dated, reverse=True)[:_LATELY]
        return Knowledge(
            story_time=str(at) if at else None,
            known=len(known),
            facts=len(facts),
            lately=[used(fact, language) for _, _, fact in lately],
        )


def fingerprint(session: Session) -> str:
    """Return OpenAI's mark of what speaks: it changes with base and adapter."""
    return "fp_" + sha256(f"{session.model.name}\0{session.model.adapter}".encode()).hexdigest()[:10]


def used(fact: Fact, language: str) -> UsedFact:
    """Return a fact as it is shown, with its book and chapter."""
    source = fact.source
    text = fact.text.get(language) or fact.told(language)
    return UsedFact(
        id=fact.id, text=text, part=source.part if source else None, chapter=source.chapter if source else None
    )


def _point(session: Session, when: str) -> Point:
    try:
        return session.character.canon.point(when)
    except CamelBellError as error:
        text = f"{error.message}; {error.hint}" if error.hint else error.message
        raise Refusal(404, text[:300], "model_not_found", "model") from error
