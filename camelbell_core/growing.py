"""Question generators that ask a service: rounds of requests, replies read strictly, nothing paid for twice, a stop when it runs dry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from camelbell_core.journal import Journal, read_rows
from camelbell_core.records import Message, Question, from_row, to_row
from camelbell_core.roles import QuestionGenerator, QuestionTools
from camelbell_core.service.endpoint import Endpoint, Request
from camelbell_core.service.listed import read_list

if TYPE_CHECKING:
    from camelbell_core.character import Character
    from camelbell_core.service.replies import Reply

_AGAIN = {
    "zh": "你的回答不是编号列表。只写编号列表，一行一个，从1开始，一共{count}个，别的什么都不要写。",
    "en": "That was no numbered list. Write only a numbered list, one item a line, from 1 to {count}, and nothing else.",
}
_DRY_ROUNDS = 3  # rounds in a row that give hardly anything, before it is given up
_HARDLY = 0.02


@dataclass(frozen=True)
class Wish:
    """What one request asks for: messages, how many items, and the question that each item is made from."""

    messages: tuple[Message, ...]
    count: int
    model: Question  # its text is replaced by an item


@dataclass(kw_only=True)
class Growing(Endpoint, QuestionGenerator):
    """A generator that asks a service for lists of questions, ``batch`` of them a request."""

    measured: ClassVar[bool] = True
    batch: int = 8
    temperature: float = 1.0
    max_tokens: int = 600

    def prepare(self, tools: QuestionTools) -> None:
        """Note the run."""
        self._tools = tools

    def wishes(self, character: Character, count: int, rng: Any) -> Iterator[Wish]:
        """Yield what is asked for in one round, about ``count`` requests."""
        raise NotImplementedError

    def takes(self, character: Character, wish: Wish, text: str) -> str:
        """Return why an item is not taken, "" if it is; what is taken counts as there from then on."""
        raise NotImplementedError

    def generate(self, character: Character, count: int, rng: Any) -> Iterator[Question]:
        """Yield up to ``count`` new questions: first those of replies that were paid for before."""
        tools = getattr(self, "_tools", QuestionTools())
        with ExitStack() as stack:
            book = _Book(self, tools, stack)
            given = 0
            for question in book.left_over(character):
                yield question
                given += 1
            dry = 0
            while given < count and dry < _DRY_ROUNDS:
                # No more than there is room for, twice over: most of what is paid for is to be used.
                room = min(self.concurrency * 2, 1 + max(0, tools.room()) * 2 // self.batch)
                wishes = list(self.wishes(character, room, rng))
                if not wishes:
                    return
                before, sent = given, book.counts["sent"]
                with closing(book.ask(character, wishes)) as asked:
                    for question in asked:
                        yield question
                        given += 1
                hardly = given - before < max(1, (book.counts["sent"] - sent) * self.batch * _HARDLY)
                dry = dry + 1 if hardly and book.counts["sent"] > sent else 0


@dataclass
class _Book:
    """What was asked for, so that a reply that came before a kill is read and not paid for again."""

    owner: Growing
    tools: QuestionTools
    stack: ExitStack
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        folder = self.tools.folder
        self.ledger = self.stack.enter_context(self.owner.ledger(folder))
        self.file = folder / f"{self.owner.name}.jsonl" if folder else None
        self.known: dict[str, Wish] = {}
        for _, row in read_rows(self.file) if self.file else ():
            self.known[row["key"]] = Wish((), row["count"], from_row(Question, row["model"]))
        self.journal = self.stack.enter_context(Journal(self.file)) if self.file else None
        bad = folder / f"{self.owner.name}-malformed.jsonl" if folder else None
        self.malformed = self.stack.enter_context(Journal(bad)) if bad else None

    def left_over(self, character: Character) -> Iterator[Question]:
        """Yield the questions of earlier replies that are not there yet."""
        for key, wish in self.known.items():
            reply = self.ledger.get(key)
            if reply is not None:
                yield from self._read(character, wish, reply)

    def ask(self, character: Character, wishes: Sequence[Wish]) -> Generator[Question, None, None]:
        """Ask for all at once, and again once where a reply is malformed; yield what is taken, as it comes."""
        again: list[tuple[Wish, Reply]] = []
        yield from self._ask(character, wishes, again)
        yield from self._ask(character, [_in_form(wish, reply) for wish, reply in again], [])

    def _ask(self, character: Character, wishes: Sequence[Wish], again: list[tuple[Wish, Reply]]) -> Iterator[Question]:
        requests = [self.owner.request(wish.messages, wish) for wish in wishes]
        self._note(requests)
        self.counts["sent"] += sum(self.ledger.get(request.key) is None for request in requests)
        with closing(self.owner.ask_all(requests, self.ledger, self.tools.folder)) as replies:
            for request, reply in replies:
                wish: Wish = request.context
                wrong = read_list(reply, wish.count).wrong
                if wrong:
                    again.append((wish, reply))
                    self.counts["malformed"] += 1
                    if self.malformed:
                        self.malformed.append({"key": request.key, "wrong": wrong, "reply": reply.text})
                yield from self._read(character, wish, reply)
                self.tools.note(self._told())

    def _note(self, requests: Sequence[Request]) -> None:
        """Note what is about to be asked; a reply that comes after this is never lost."""
        for request in requests:
            if self.journal and request.key not in self.known:
                wish: Wish = request.context
                self.journal.append({"key": request.key, "count": wish.count, "model": to_row(wish.model)})
                self.known[request.key] = wish

    def _read(self, character: Character, wish: Wish, reply: Reply) -> Iterator[Question]:
        for item in read_list(reply, wish.count).items:
            self.counts["items"] += 1
            why = self.owner.takes(character, wish, item)
            if why:
                self.counts[why] += 1
                continue
            self.counts["taken"] += 1
            yield replace(wish.model, text=item)

    def _told(self) -> str:
        taken, items, bad = (self.counts[name] for name in ("taken", "items", "malformed"))
        share = f"{taken / items:.0%} new" if items else ""
        return ", ".join(filter(None, (share, f"{bad} malformed" if bad else "", self.owner.spending(self.ledger))))


def _in_form(wish: Wish, reply: Reply) -> Wish:
    """Return what is asked after a malformed reply: the same once more, with what was wrong."""
    order = _AGAIN.get(wish.model.language, _AGAIN["en"]).format(count=wish.count)
    said = (Message("assistant", reply.text[:500] or "-"), Message("user", order))
    return Wish((*wish.messages, *said), wish.count, wish.model)
