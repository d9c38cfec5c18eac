"""The full-text index of a canon: every wording of every fact, in SQLite's FTS5."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path

_SCHEMA = """
CREATE VIRTUAL TABLE wording USING fts5(
    words, fact UNINDEXED, language UNINDEXED, answer UNINDEXED, weight UNINDEXED,
    tokenize="unicode61 remove_diacritics 0 tokenchars '@_#<>'"
);
CREATE TABLE fact(id TEXT PRIMARY KEY, names TEXT) WITHOUT ROWID;
CREATE VIRTUAL TABLE term USING fts5vocab(wording, 'row');
"""
_SEEN = 4_000  # wordings that a query may look at in a large canon: its rarest words come first


@dataclass(frozen=True, slots=True)
class Wording:
    """One way to put or to tell a fact; ``answer`` is what was said to just this question."""

    fact: str
    language: str
    words: frozenset[str]
    answer: str = ""


@dataclass(frozen=True, slots=True)
class Match:
    """A wording that shares words with a question, and the share of both their weights that they share.

    ``shares`` is what each shared word makes up of the question.
    """

    wording: Wording
    score: float
    shares: Mapping[str, float]


class WordingIndex:
    """Finds the wordings nearest to a question.

    A word weighs its inverse document frequency, a name ``name_weight`` times the rarest word's. The score of a
    wording is the weight that it shares with the question, over a mean of the question's and its own weight.
    """

    def __init__(self, database: sqlite3.Connection, name_weight: float, me: str) -> None:
        self._database = database
        self._name_weight = name_weight
        self._me = me
        self._count = int(database.execute("SELECT count(*) FROM wording").fetchone()[0])
        self._rarest = log(1 + self._count)

    @classmethod
    def build(
        cls, wordings: Iterable[Wording], names: Mapping[str, Iterable[str]], file: Path | None, name_weight: float, me: str
    ) -> WordingIndex:  # fmt: skip
        """Write the index, and the ``names`` that each fact names, into a file or into memory, and open it."""
        database = sqlite3.connect(file or ":memory:", check_same_thread=False)
        database.executescript(_SCHEMA)
        rows = ((" ".join(sorted(w.words)), w.fact, w.language, w.answer) for w in wordings)
        database.executemany("INSERT INTO wording(words, fact, language, answer) VALUES (?, ?, ?, ?)", rows)
        told = ((fact, " ".join(sorted(named))) for fact, named in names.items())
        database.executemany("INSERT INTO fact(id, names) VALUES (?, ?)", told)
        index = cls(database, name_weight, me)
        known = dict(database.execute("SELECT term, doc FROM term"))
        weigh = index.weigher(known)
        found = database.execute("SELECT rowid, words FROM wording").fetchall()
        weights = ((round(sum(map(weigh, words.split(" "))), 3), number) for number, words in found)
        database.executemany("UPDATE wording SET weight = ? WHERE rowid = ?", weights)
        database.commit()
        return index

    @classmethod
    def open(cls, file: Path, name_weight: float, me: str) -> WordingIndex:
        """Open an index that was written before."""
        database = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False)
        return cls(database, name_weight, me)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def weigher(self, frequencies: dict[str, int]) -> Callable[[str], float]:
        """Return the function that weighs a word by how many wordings hold it."""

        def weigh(word: str) -> float:
            if word.startswith("@") and word != self._me:
                return self._name_weight * self._rarest
            return log(1 + self._count / (1 + frequencies.get(word, 0)))

        return weigh

    def names(self, facts: Iterable[str]) -> dict[str, frozenset[str]]:
        """Return the names that each of some facts names."""
        wanted = list(facts)
        marks = ",".join("?" * len(wanted))
        rows = self._database.execute(f"SELECT id, names FROM fact WHERE id IN ({marks})", wanted)
        return {fact: frozenset(named.split()) for fact, named in rows}

    def search(self, words: frozenset[str], count: int) -> list[Match]:
        """Return up to ``count`` wordings that share a word with the question, in no order."""
        if not words or not self._count:
            return []
        marks = ",".join("?" * len(words))
        frequencies = dict(self._database.execute(f"SELECT term, doc FROM term WHERE term IN ({marks})", sorted(words)))
        weigh = self.weigher(frequencies)
        weights = {word: weigh(word) for word in words}
        total = sum(weights.values())
        matches = []
        for text, fact, language, answer, weight in self._candidates(words, frequencies, count):
            own = frozenset(text.split(" "))
            shared = words & own
            weight_shared = sum(weights[word] for word in shared)
            score = weight_shared / (0.7 * total + 0.3 * float(weight) + 1e-9)
            shares = {word: weights[word] / total for word in shared}
            matches.append(Match(Wording(fact, language, own, answer), score, shares))
        return matches

    def _candidates(
        self, words: frozenset[str], frequencies: dict[str, int], count: int
    ) -> Sequence[tuple[str, str, str, str, float]]:
        """Return the likeliest wordings by bm25: those that share a name and a word come first."""
        rare: list[str] = []
        seen = 0
        for word in sorted(frequencies, key=lambda word: (frequencies[word], word)):
            if rare and seen + frequencies[word] > max(_SEEN, self._count // 20):
                break
            rare.append(word)
            seen += frequencies[word]
        if not rare:
            return []
        names = " OR ".join(f'"{word}"' for word in rare if word.startswith("@") and word != self._me)
        others = " OR ".join(f'"{word}"' for word in rare if not word.startswith("@") or word == self._me)
        queries = [f"({names}) AND ({others})"] if names and others else []
        queries.append(" OR ".join(part for part in (names, others) if part))
        sql = (
            "SELECT rowid, words, fact, language, answer, weight FROM wording "
            "WHERE wording MATCH ? ORDER BY rank LIMIT ?"
        )
        found: dict[int, tuple[str, str, str, str, float]] = {}
        for query in queries:
            for number, *row in self._database.execute(sql, (query, count)):
                found.setdefault(number, tuple(row))
            if len(found) >= count:
                break
        return list(found.values())
