"""The words that questions and facts are compared by, in Chinese and in English."""

from __future__ import annotations

import re
from functools import lru_cache

import snowballstemmer  # type: ignore[import-untyped]

from camelbell_core.canon import Canon
from camelbell_core.text import CJK, bigrams

# Words that a question is made of whatever it asks about.
_STOP = frozenset(
    """
    a an the is was are were be been do does did of to in on at for with by and or that this it its s t m re ve
    你的 的是 是谁 什么 谁的 谁是 是什 你是 你知 知道 告诉 诉我 怎么 么样 请问 一下 你们 他的 她的 么时 时候 是不 不是 有没 没有
    """.split()
)
_YOU = re.compile(r"你|我|\b(?:you|your|yours|yourself|I|me|my|mine)\b", re.IGNORECASE)
_PIECE = 4  # letters of the pieces of English words, which misspelt ones still share


def name_word(entity: str) -> str:
    """Return the word that stands for a name; what the index would fold or part words at is spelt in numbers."""
    return "@" + "".join(c if c == "_" or (c.isalnum() and c == c.lower()) else f"<{ord(c):x}>" for c in entity)


class Words:
    """Takes texts apart; names become ``@entity``, so that an alias or the other language finds the same."""

    def __init__(self, canon: Canon, entity: str) -> None:
        self._names = canon.names
        self.me = name_word(entity) if entity else ""

    def of(self, text: str) -> frozenset[str]:
        """Return the names, pairs of Chinese characters and stems of English words of a text."""
        rest = list(text)
        found = set()
        for mention in self._names.find(text):
            found.add(name_word(mention.entity))
            rest[mention.start : mention.end] = " " * (mention.end - mention.start)
        if self.me and _YOU.search(text):
            found.add(self.me)
        plain = (token for token in bigrams("".join(rest)) if token not in _STOP)
        return frozenset(found) | {token if CJK.match(token) else _stem(token) for token in plain}

    def features(self, text: str) -> list[str]:
        """Return what the retriever reads: the words, single Chinese characters, and pieces of English words."""
        words = self.of(text)
        features = set(words)
        for word in words:
            if word.startswith("@"):
                continue
            if CJK.match(word):
                features.update(f"1{char}" for char in word)
            elif len(word) >= _PIECE:
                edged = f"<{word}>"
                features.update(f"#{edged[i : i + _PIECE]}" for i in range(len(edged) - _PIECE + 1))
        return sorted(features)

    def named(self, text: str) -> list[set[str]]:
        """Return for each name in a text whom it may mean, without the character itself."""
        spans: dict[tuple[int, int], set[str]] = {}
        for mention in self._names.find(text):
            spans.setdefault((mention.start, mention.end), set()).add(name_word(mention.entity))
        return [owners for owners in spans.values() if self.me not in owners]

    def names(self, words: frozenset[str]) -> set[str]:
        """Return the names among words, without the character's own: "you" names nobody to speak of."""
        return {word for word in words if word.startswith("@") and word != self.me}


@lru_cache(maxsize=100_000)
def _stem(word: str) -> str:
    return str(_stemmer().stemWord(word))


@lru_cache(maxsize=1)
def _stemmer() -> snowballstemmer.stemmer:
    return snowballstemmer.stemmer("english")
