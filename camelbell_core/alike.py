"""Texts that say nearly the same, found exactly: ROUGE-L F above a threshold, at tens of thousands of texts."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

from camelbell_core.text import CJK

if TYPE_CHECKING:
    from numpy.typing import NDArray

# One token each, since these scripts put no blanks between words: Han, kana, Thai, Lao, Myanmar, Khmer.
_SINGLE = rf"{CJK.pattern}|[\u3040-\u30ff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\U00020000-\U0003ffff]"
_TOKEN = re.compile(rf"{_SINGLE}|(?:(?!{_SINGLE})[^\W_])+")
_COARSE, _FINE = 127, 512  # bits of the two signatures, in 2 and 8 words
_MOST = 127  # what a text can allow in a coarse comparison: the sum of two fits a byte
_CHUNK = 16384  # texts that are compared at a time: their signatures fit a core's cache


def tokens(text: str) -> list[str]:
    """Return what is compared: Chinese characters one by one, words of scripts with blanks; no case, no marks."""
    return _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())


class AlikePool:
    """A growing pool of texts that tells which of them a new text is too like.

    Two texts are too like when ROUGE-L's F, ``2 * LCS / (m + n)`` over their ``m`` and ``n`` tokens (LCS: the longest
    common subsequence; Lin 2004), is above ``threshold``, or with ``inclusive`` at least that. It is decided in whole
    numbers: a pair at exactly the threshold is not above it, where rouge_score's floating point puts some such
    pairs a hair above. A text without tokens is like none.

    Nearly all pairs are ruled out by a bound: a signature has a bit for each hashed (token, occurrence), and two
    signatures differ in at most ``m + n - 2 * LCS`` bits. What is left is decided by rapidfuzz.
    """

    def __init__(
        self, threshold: float = 0.7, *, inclusive: bool = False, split: Callable[[str], Sequence[str]] = tokens
    ) -> None:
        if not 0 < threshold <= 1:
            raise ValueError(f"the threshold is {threshold}; it must be above 0 and at most 1")
        self.threshold = Fraction(str(threshold))
        self.inclusive = inclusive
        self.split = split
        self._codes: dict[str, int] = {}
        self._texts: list[tuple[int, ...]] = []
        self._room = 0  # for so many texts the arrays are large enough
        self._scratch: list[NDArray[Any]] = []
        self._coarse: NDArray[Any]  # by planes: each is read in one sweep
        self._fine: NDArray[Any]
        self._allowed: NDArray[Any]
        self._allowed_fine: NDArray[Any]

    def __len__(self) -> int:
        return len(self._texts)

    def extend(self, texts: Iterable[str]) -> list[int]:
        """Add the texts in their order; return for each what ``add`` returns."""
        return [self.add(text) for text in texts]

    def add(self, text: str) -> int:
        """Keep a text and return -1, or return the place of the first kept one that it is too like, counted from 0."""
        sample = self._sample(text)
        place = next(self._alike(sample), -1)
        if place < 0:
            self._keep(sample)
        return place

    def keep(self, text: str) -> None:
        """Keep a text, whatever it is like."""
        self._keep(self._sample(text))

    def alike(self, text: str) -> Iterator[int]:
        """Yield the places of all kept texts that this one is too like, the first ones first."""
        return self._alike(self._sample(text))

    def _sample(self, text: str) -> _Sample:
        words = self.split(text)
        codes = tuple(self._codes.setdefault(word, len(self._codes)) for word in words)
        allowed = ceil((1 - self.threshold) * len(codes)) + self.inclusive  # two too like differ in less than their sum
        return _Sample(codes, allowed, *_signatures(words))

    def _alike(self, sample: _Sample) -> Iterator[int]:
        from rapidfuzz.distance import LCSseq

        above, below = self.threshold.numerator, 2 * self.threshold.denominator
        for place in self._candidates(sample):
            other = self._texts[place]
            total = above * (len(sample.codes) + len(other))
            least = -(-total // below) if self.inclusive else total // below + 1
            if LCSseq.similarity(sample.codes, other, score_cutoff=least) >= least:
                yield place

    def _candidates(self, sample: _Sample) -> Iterator[int]:
        """Yield the places that the bound does not rule out, the first ones first."""
        import numpy as np

        if not sample.codes:
            return
        coarse, fine = np.frombuffer(sample.coarse, "<u8"), np.frombuffer(sample.fine, "<u8")
        for start in range(0, len(self._texts), _CHUNK):
            end = min(start + _CHUNK, len(self._texts))
            differ, words, ones = (scratch[: end - start] for scratch in self._scratch)
            differ.fill(0)
            for plane, word in zip(self._coarse, coarse, strict=True):
                np.bitwise_xor(plane[start:end], word, out=words)
                np.bitwise_count(words, out=ones)
                np.add(differ, ones, out=differ)
            np.add(self._allowed[start:end], np.uint8(min(sample.allowed, _MOST)), out=ones)
            (close,) = np.nonzero(np.less(differ, ones, out=ones.view(bool)))
            if close.size:
                places = start + close
                differing = np.bitwise_count(self._fine[places] ^ fine).sum(axis=1, dtype=np.uint16)
                yield from places[differing < self._allowed_fine[places] + sample.allowed].tolist()

    def _keep(self, sample: _Sample) -> None:
        import numpy as np

        place = len(self._texts)
        if place == self._room:
            self._grow(max(1024, place * 2))
        self._coarse[:, place] = np.frombuffer(sample.coarse, "<u8")
        self._fine[place] = np.frombuffer(sample.fine, "<u8")
        self._allowed[place] = min(sample.allowed, _MOST)
        self._allowed_fine[place] = sample.allowed
        self._texts.append(sample.codes)

    def _grow(self, room: int) -> None:
        import numpy as np

        have = self._room
        coarse: NDArray[Any] = np.zeros((2, room), np.uint64)
        fine: NDArray[Any] = np.zeros((room, _FINE // 64), np.uint64)
        allowed: NDArray[Any] = np.zeros(room, np.uint8)
        allowed_fine: NDArray[Any] = np.zeros(room, np.int32)
        if have:
            coarse[:, :have], fine[:have] = self._coarse, self._fine
            allowed[:have], allowed_fine[:have] = self._allowed, self._allowed_fine
        else:
            self._scratch = [np.empty(_CHUNK, kind) for kind in (np.uint8, np.uint64, np.uint8)]
        self._coarse, self._fine, self._room = coarse, fine, room
        self._allowed, self._allowed_fine = allowed, allowed_fine


class _Sample(NamedTuple):
    """A text as it is compared: its tokens as numbers, how many bits it allows to differ, and its two signatures."""

    codes: tuple[int, ...]
    allowed: int
    coarse: bytes
    fine: bytes


@lru_cache(2**16)
def _hash(word: str, time: int) -> int:
    return crc32(f"{time}\x1f{word}".encode("utf-8", "surrogatepass"))


def _signatures(words: Sequence[str]) -> tuple[bytes, bytes]:
    """Return the coarse and the fine signature: a bit for each token and how many times it came before."""
    coarse = fine = 0
    times: Counter[str] = Counter()
    for word in words:
        code = _hash(word, times[word])
        times[word] += 1
        coarse |= 1 << code % _COARSE
        fine |= 1 << (code >> 8) % _FINE
    return coarse.to_bytes(16, "little"), fine.to_bytes(_FINE // 8, "little")
