"""The memory over the canon: names first, then words, in an in-memory SQLite FTS5 index."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, ClassVar

from camelbell_core import hookimpl
from camelbell_core.records import Message, Point, Recall
from camelbell_core.roles import Memory
from camelbell_core.text import bigrams

if TYPE_CHECKING:
    from camelbell_core.character import Character

# Words that a question is made of whatever it asks about.
_STOP = frozenset(
    """
    a an the is was are were be been do does did you your yours he his she her it its they their of to in on
    at for with by from and or that this what who whom whose which how when where why tell me about can could
    would will have has had s i my we us so there please know ever really just
    你的 的是 是谁 什么 谁的 谁是 是什 你是 你知 知道 告诉 诉我 怎么 么样 请问 一下 吗？ 你们 他的
    她的 么时 时候 是不 不是 有没 没有 哪里 哪儿 哪个
    """.split()
)

_LONGEST = 4000  # characters of a question that are looked at, its end: SQLite bounds the terms of a query
_YOU = re.compile(r"你|我|\b(?:you|your|yours|yourself|I|me|my|mine)\b", re.IGNORECASE)


@dataclass(kw_only=True)
class CanonMemory(Memory):
    """Facts of the canon by the names and words of a question, in both languages.

    ``candidates`` come from SQLite's bm25; they are put in order by how much of the question's weight
    (inverse document frequency) one wording of the fact covers. A name counts as its entity, so that
    an alias or the other language finds the same facts; ``name_weight`` is a name's weight against that of
    the rarest word.
    """

    name: ClassVar[str] = "canon"
    candidates: int = 200
    name_weight: float = 1.3

    def prepare(self, character: Character) -> None:
        """Index every wording of every fact: statement, the character's telling, and questions."""
        import sqlite3

        self._canon = character.canon
        self._self = character.config.entity
        self._wordings: list[tuple[str, frozenset[str]]] = []
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        self._database.execute(
            "CREATE VIRTUAL TABLE wording USING fts5(tokens, tokenize=\"unicode61 tokenchars '@_'\")"
        )
        self._database.execute("CREATE VIRTUAL TABLE term USING fts5vocab(wording, 'row')")
        rows = []
        for fact in self._canon.facts.values():
            about = {f"@{entity}" for entity in fact.about}
            told = [*fact.text.values(), *fact.voice.values()]
            for wording in (*told, *(ask for asks in fact.ask.values() for ask in asks)):
                tokens = self._tokens(wording) | about
                self._wordings.append((fact.id, tokens))
                rows.append((len(self._wordings), " ".join(sorted(tokens))))
        self._database.executemany("INSERT INTO wording(rowid, tokens) VALUES (?, ?)", rows)

    def recall(
        self, question: str, count: int, at: Point | None = None, history: Sequence[Message] = ()
    ) -> list[Recall]:
        """Return the likeliest facts; a question that names nothing is read with the turn before it."""
        tokens = self._tokens(question[-_LONGEST:])
        if history and not self._names(tokens):
            tokens |= self._names(self._tokens("".join(message.content for message in history[-2:])))
        if not tokens or not self._wordings:
            return []
        weights = self._weights(tokens)
        total = sum(weights.values()) or 1.0
        best: dict[str, float] = {}
        for number in self._search(tokens):
            fact_id, wording = self._wordings[number - 1]
            if not self._canon.facts[fact_id].holds_at(at):
                continue
            shared = sum(weights[token] for token in tokens & wording)
            # A wording that says much else fits a little worse: it breaks ties.
            score = shared / total - 0.002 * len(wording - tokens)
            best[fact_id] = max(best.get(fact_id, -1.0), score)
        ranked = sorted(best.items(), key=lambda item: (-item[1], item[0]))[:count]
        return [Recall(self._canon.facts[fact_id], max(0.0, min(1.0, score))) for fact_id, score in ranked]

    def _tokens(self, text: str) -> frozenset[str]:
        mentions = self._canon.names.find(text)
        rest = list(text)
        for mention in mentions:
            for i in range(mention.start, mention.end):
                rest[i] = " "
        words = {token for token in bigrams("".join(rest)) if token not in _STOP}
        if self._self and _YOU.search(text):
            words.add(f"@{self._self}")
        return frozenset(words | {f"@{mention.entity}" for mention in mentions})

    def _names(self, tokens: frozenset[str]) -> set[str]:
        """Return the names among the tokens, without the character's own: "you" names nobody to speak of."""
        return {token for token in tokens if token.startswith("@") and token != f"@{self._self}"}

    def _weights(self, tokens: frozenset[str]) -> dict[str, float]:
        marks = ",".join("?" * len(tokens))
        found = dict(self._database.execute(f"SELECT term, doc FROM term WHERE term IN ({marks})", list(tokens)))
        rarest = log(1 + len(self._wordings))
        weights = {token: log(1 + len(self._wordings) / (1 + found.get(token, 0))) for token in tokens}
        for token in self._names(tokens):
            weights[token] = self.name_weight * rarest  # whom a question names counts, however often told of
        return weights

    def _search(self, tokens: frozenset[str]) -> list[int]:
        """Return the numbers of the likeliest wordings: those that share a name and a word come first."""
        names = " OR ".join(f'"{token}"' for token in sorted(tokens) if token.startswith("@"))
        words = " OR ".join(f'"{token}"' for token in sorted(tokens) if not token.startswith("@"))
        queries = [f"({names}) AND ({words})"] if names and words else []
        queries.append(" OR ".join(part for part in (names, words) if part))
        sql = "SELECT rowid FROM wording WHERE tokens MATCH ? ORDER BY bm25(wording) LIMIT ?"
        rows = (row for query in queries for row in self._database.execute(sql, (query, self.candidates)))
        return list(dict.fromkeys(number for (number,) in rows))


@hookimpl
def register_memories() -> list[type[Memory]]:
    """Offer the memory over the canon."""
    return [CanonMemory]
