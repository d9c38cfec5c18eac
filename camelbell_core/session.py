"""One conversation with a character: history, facts, the reply stream and its guard."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from secrets import token_hex
from threading import Event
from time import monotonic
from typing import Protocol

from camelbell_core.character import Character
from camelbell_core.compose import ANSWERS, compose
from camelbell_core.errors import CamelBellError
from camelbell_core.prompts import Prompt, build_prompt, persona_of
from camelbell_core.records import Fact, Message, Pair, Point, Recall, Verdict
from camelbell_core.registry import Registry
from camelbell_core.roles import Filter, LanguageModel, Memory
from camelbell_core.text import language_of, printable, sentences

_RETRY_TEMPERATURE = 0.7  # a greedy reply tried again would be the same
_NEARER = 0.15  # how much likelier it must be then than what is known now
_LATER = 0.6  # the score from which on a fact that lies in the future is what a question asks for


@dataclass(slots=True)
class Try:
    """One time that the model was asked: the prompt, all that it said, and why the guard held it back."""

    prompt: Prompt
    facts: tuple[Fact, ...]
    temperature: float
    said: str = ""
    verdict: Verdict | None = None  # of the sentence that was not shown
    first: float = 0.0  # seconds until the model's first piece
    seconds: float = 0.0  # until its last one


@dataclass(slots=True)
class Turn:
    """A question, the reply to it, and why the reply is what it is."""

    question: str
    language: str
    answer: str = ""
    facts: tuple[Fact, ...] = ()
    prompt: Prompt | None = None
    verdicts: tuple[Verdict, ...] = ()  # of the replies that were not shown
    composed: bool = False  # made of facts alone, after the model's replies failed
    later: Fact | None = None  # what the question asks for, where the character learns it only later
    recalls: tuple[Recall, ...] = ()  # what came to mind, the likeliest first
    tries: list[Try] = field(default_factory=list)
    at: Point | None = None  # the story time
    model: str = ""
    stopped: bool = False  # before the reply was whole
    waited: float = 0.0  # seconds until the first piece was shown
    seconds: float = 0.0  # until the last one
    id: str = field(default_factory=lambda: token_hex(6))


@dataclass(frozen=True, slots=True)
class Settings:
    """How a session replies; ``max_tokens`` bounds one reply, ``temperature`` 0 is greedy."""

    max_tokens: int = 96
    temperature: float = 0.0
    at: Point | None = None
    turns: int = 4  # how many turns of history the prompt holds


class Log(Protocol):
    """Keeps what is said; a turn that is taken back stays in it as a branch."""

    def add(self, turn: Turn, after: Turn | None) -> None:
        """Keep a turn and which one it follows."""

    def back(self, turn: Turn | None) -> None:
        """Note that the conversation goes on after this turn, or from its beginning."""


class Session:
    """Talks as one character; every frontend and the evaluation go through it.

    A session is one conversation. ``stop`` may be called from any thread, everything else from one at a time.
    """

    def __init__(
        self,
        character: Character,
        model: LanguageModel,
        memory: Memory | None,
        guard: Sequence[Filter] = (),
        personas: dict[str, str] | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.character = character
        self.model = model
        self.memory = memory
        self.guard = list(guard)
        self.settings = settings or Settings()
        self.turns: list[Turn] = []
        self.personas = personas or {}
        self.log: Log | None = None
        self._stop = Event()

    def reply(self, text: str, temperature: float | None = None) -> Iterator[str]:
        """Yield the reply in pieces as they are fit to be shown, and remember the turn.

        ``temperature`` takes the place of the settings' for this reply.

        With a guard, a sentence is shown once all its filters have passed what was said so far;
        a reply whose first sentence fails is tried again with fewer facts, then composed from them.
        """
        self._stop.clear()
        text = printable(text.encode("utf-8", "replace").decode("utf-8"))  # bytes of another encoding were typed
        turn = Turn(text, language_of(text, self.character.languages), at=self.settings.at, model=self.model.name)
        heat = self.settings.temperature if temperature is None else temperature
        history, before, started = self.history(), self.turns[-1] if self.turns else None, monotonic()
        self.turns.append(turn)
        turn.stopped = True
        try:
            for piece in self._reply(turn, history, heat):
                turn.waited = turn.waited or monotonic() - started
                turn.answer += piece
                yield piece
            turn.stopped = self._stop.is_set()
        finally:
            turn.answer = turn.answer.strip()
            turn.seconds = monotonic() - started
            if self.log:
                self.log.add(turn, before)

    def _reply(self, turn: Turn, history: Sequence[Message], temperature: float) -> Iterator[str]:
        recalls = self._recall(turn.question, history)
        turn.recalls = tuple(recalls)
        turn.later = self._not_yet(turn.question, history, recalls)
        if turn.later and (now := self._told_now(turn.question, recalls)):
            recalls, turn.later = [*now, *(recall for recall in recalls if recall not in now)], None
        if turn.later and self.guard:
            turn.composed = True
            yield compose(self.character, turn.language, turn.question, ()).text
            return
        for attempt in self._attempts(turn, recalls, history):
            turn.tries.append(Try(attempt, turn.facts, temperature))
            for piece in self._say(turn, turn.tries[-1]):
                shown = piece if turn.answer else piece.lstrip()  # English answers begin with a blank
                if shown:
                    yield shown
            if turn.answer.strip() or self._stop.is_set():
                return
        known = compose(self.character, turn.language, turn.question, recalls)
        turn.facts, turn.composed = known.facts, True
        yield known.text

    def ask(self, text: str) -> str:
        """Return the whole reply."""
        return "".join(self.reply(text)).strip()

    def retry(self) -> Iterator[str]:
        """Yield another reply to the last question, a little freer; the one before is forgotten."""
        if not self.turns:
            raise CamelBellError("nothing has been said yet", "ask something first")
        return self.edit(self.turns[-1].question, max(self.settings.temperature, _RETRY_TEMPERATURE))

    def edit(self, text: str, temperature: float | None = None) -> Iterator[str]:
        """Yield the reply to another question in the place of the last one."""
        if not self.turns:
            raise CamelBellError("nothing has been said yet", "ask something first")
        self.turns.pop()
        return self.reply(text, temperature)

    def undo(self, count: int = 1) -> list[Turn]:
        """Take the last turns back, as many as there are, and return them in their order."""
        kept = max(0, len(self.turns) - max(0, count))
        gone = self.turns[kept:]
        del self.turns[kept:]
        if gone and self.log:
            self.log.back(self.turns[-1] if self.turns else None)
        return gone

    def travel(self, at: Point | None) -> None:
        """Go to a point of the story; None is its end."""
        self.settings = replace(self.settings, at=at)

    def stop(self) -> None:
        """End the reply that is being made."""
        self._stop.set()

    def reset(self) -> None:
        """Forget the conversation."""
        self.undo(len(self.turns))

    def history(self) -> list[Message]:
        """Return the last turns as messages."""
        last = self.turns[-self.settings.turns :] if self.settings.turns else []
        pairs = [(Message("user", t.question), Message("assistant", t.answer)) for t in last if t.answer]
        return [message for pair in pairs for message in pair]

    def _recall(self, text: str, history: Sequence[Message]) -> list[Recall]:
        if self.memory is None:
            return []
        return self.memory.recall(text, self.character.config.facts, self.settings.at, history)

    def _not_yet(self, text: str, history: Sequence[Message], recalls: Sequence[Recall]) -> Fact | None:
        """Return the fact that a question asks for if the character learns it only after the story time."""
        at = self.settings.at
        if self.memory is None or at is None:
            return None
        for recall in self.memory.recall(text, 1, None, history):
            known = recall.fact.known_from or recall.fact.true_from or recall.fact.source
            unsure = not recalls or recalls[0].score < max(ANSWERS, recall.score - _NEARER)
            if known and known > at and recall.score >= _LATER and unsure:
                return recall.fact
        return None

    def _told_now(self, text: str, recalls: Sequence[Recall]) -> list[Recall]:
        """Return what holds only for now of those whom a question names: better told than what comes later is denied."""
        named = set(self.character.canon.names.ids(text)) - {self.character.config.entity}
        return [recall for recall in recalls if recall.fact.true_until and named & set(recall.fact.about)]

    def _attempts(self, turn: Turn, recalls: Sequence[Recall], history: Sequence[Message]) -> Iterator[Prompt]:
        """Yield the prompt, and under a guard a tighter one: the likeliest facts, no history."""
        persona = self.personas.get(turn.language, persona_of(self.character, turn.language))
        facts = [recall.fact for recall in recalls]
        turn.facts = tuple(facts)
        turn.prompt = build_prompt(persona, turn.language, turn.question, facts, history)
        yield turn.prompt
        if self.guard and len(facts) > 1:
            turn.facts = tuple(facts[:1])
            yield build_prompt(persona, turn.language, turn.question, facts[:1])

    def _say(self, turn: Turn, attempt: Try) -> Iterator[str]:
        with closing(self._pieces(attempt)) as pieces:
            if not self.guard:
                yield from pieces
                return
            shown = ""
            for sentence, ended in _by_sentence(pieces):
                verdict = self._judge(turn, (shown + sentence).strip())
                if not verdict.kept:
                    attempt.verdict = verdict
                    turn.verdicts += (verdict,)
                    return
                if self._stop.is_set() and not ended:
                    return
                shown += sentence
                yield sentence

    def _pieces(self, attempt: Try) -> Generator[str]:
        """Yield what the model says, fit for a terminal, and keep it with its times."""
        started = monotonic()
        for piece in self.model.stream(
            attempt.prompt, self.settings.max_tokens, attempt.temperature, self._stop.is_set
        ):
            attempt.seconds = monotonic() - started
            attempt.first = attempt.first or attempt.seconds
            attempt.said += printable(piece)
            yield printable(piece)

    def _judge(self, turn: Turn, answer: str) -> Verdict:
        facts = tuple(fact.id for fact in turn.facts)
        at = str(self.settings.at) if self.settings.at else ""
        said = tuple(message.content for message in turn.prompt.history) if turn.prompt else ()
        pair = Pair(
            turn.question, answer, turn.language, "chat", facts, teacher="model", model=self.model.name, at=at,
            history=said,
        )  # fmt: skip
        for judge in self.guard:
            verdict = judge.judge(pair)
            if not verdict.kept:
                return verdict
        return Verdict("guard")


def _by_sentence(pieces: Iterator[str]) -> Iterator[tuple[str, bool]]:
    """Yield whole sentences as soon as they are complete, and at the end what is left.

    A question goes with the sentence after it: "Gavin? I don't know him." is judged, and shown, as one.
    """
    pending = ""
    for piece in pieces:
        *whole, last = sentences(pending + piece) or [""]
        pending = ""
        for sentence in whole:
            pending += sentence
            if not pending.rstrip().endswith(("?", "？")):
                yield pending, True
                pending = ""
        pending += last
    if pending.strip():
        yield pending, False


def open_session(
    character: Character,
    registry: Registry,
    model: LanguageModel,
    *,
    memory: bool = True,
    guard: bool = True,
    settings: Settings | None = None,
) -> Session:
    """Return a session with the memory and the guard that the bundle chooses."""
    config = character.config
    remembers: Memory | None = None
    if memory and config.facts:
        remembers = registry.build(Memory, "memories", config.memory)
        remembers.prepare(character)
    judges = [registry.build(Filter, "filters", ref) for ref in config.guard] if guard else []
    for judge in judges:
        judge.prepare(character, remembers)
    return Session(character, model, remembers, judges, personas(character, registry), settings)


def personas(character: Character, registry: Registry) -> dict[str, str]:
    """Return the persona of each language, from the ``build_persona`` hook or the YAML."""
    hook = registry.manager.hook.build_persona
    return {
        language: persona_of(character, language, hook(character=character, language=language))
        for language in character.languages
    }
