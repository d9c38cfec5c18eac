"""Why a reply is what it is: the facts it rests on, and how it came about."""

from __future__ import annotations

from collections.abc import Iterator

from camelbell_core.character import Character
from camelbell_core.records import Fact
from camelbell_core.session import Try, Turn


def facts_of(turn: Turn, character: Character) -> Iterator[str]:
    """Yield a line for each fact that a reply rests on, with its place in the story and how well it fits."""
    scores = {recall.fact.id: recall.score for recall in turn.recalls}
    if turn.later:
        yield f"not known yet: {_told(turn.later, turn, character)}"
    for fact in turn.facts:
        score = f"  fits {scores[fact.id]:.2f}" if fact.id in scores else ""
        yield f"- {_told(fact, turn, character)}{score}"
    if not turn.facts:
        yield "the last answer rests on no fact"
    if turn.composed:
        yield "composed without the model; /why tells"
    elif turn.verdicts:
        yield "the guard held something back; /why tells"


def _told(fact: Fact, turn: Turn, character: Character) -> str:
    text = fact.text.get(turn.language) or fact.told(turn.language)
    known = fact.known_from if fact is turn.later and fact.known_from else fact.source
    return f"{text}  [{character.canon.place(known, turn.language)}]" if known else text


def why(turn: Turn, character: Character) -> Iterator[str]:
    """Yield the prompt, each time that the model was asked, what the guard said, and what was shown."""
    prompt = turn.prompt
    if prompt:
        yield "prompt"
        yield f"  persona  {prompt.persona}"
        yield from _block("facts", [f"- {fact}" for fact in prompt.facts])
        yield from _block("history", [f"{'> ' if m.role == 'user' else ''}{m.content}" for m in prompt.history])
        yield f"  question {prompt.question}"
        if turn.at:
            yield f"  at       {character.canon.place(turn.at, turn.language)}"
    for number, attempt in enumerate(turn.tries, 1):
        yield from _tried(number, attempt)
    yield f"shown: {_shown(turn, character)}"


def _tried(number: int, attempt: Try) -> Iterator[str]:
    facts = f"{len(attempt.facts)} fact{'' if len(attempt.facts) == 1 else 's'}"
    history = "" if number == 1 or attempt.prompt.history else ", no history"
    times = f"{attempt.first:.1f} s to the first piece, {attempt.seconds:.1f} s in all"
    yield f"try {number}: {facts}{history}, temperature {attempt.temperature:g}, {times}"
    yield f"  the model said: {' '.join(attempt.said.split()) or 'nothing'}"
    if attempt.verdict:
        yield f"  held back by {attempt.verdict.filter}: {attempt.verdict.reason}"


def _shown(turn: Turn, character: Character) -> str:
    if turn.later:
        known = turn.later.known_from or turn.later.true_from or turn.later.source
        place = f", in {character.canon.place(known, turn.language)}" if known else ""
        if turn.composed:
            return f"an admission of not knowing: what is asked for is learned only later{place}"
    if turn.composed:
        return "composed from the facts alone" if turn.facts else "an admission of not knowing: no fact fits"
    if turn.stopped:
        return "what had been said when it was stopped"
    held = next((attempt.verdict for attempt in reversed(turn.tries) if attempt.verdict), None)
    if turn.tries and turn.tries[-1].verdict is held and held:
        return f"try {len(turn.tries)}, up to the sentence that was held back"
    return f"try {len(turn.tries)}, whole" if turn.tries else "as it was kept; how it came about was not"


def _block(label: str, lines: list[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield f"  {label if not number else '':<8} {line}"
