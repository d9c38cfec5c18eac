"""Small questions about text that have one answer for Chinese and for English."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

CJK = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_LATIN = re.compile(r"[0-9A-Za-zÀ-ɏ]")
# Removed before comparing: blanks, middle dots, hyphens and dashes, quotes of all kinds.
_IGNORED = re.compile("[\\s·・•‧∙\\-‐‑‒–—―'\"`´‘’‚“”„«»「」『』]")
_RUN = re.compile(rf"{CJK.pattern}+|(?:(?!{CJK.pattern})[^\W_])+")  # of one script
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_SENTENCE_END = re.compile(
    r"(?<=[。！？!?…])(?![。！？!?…”’」』\"'])|(?<=[。！？!?…][”’」』\"'])|(?<=\.)(?=\s+[A-Z\"'“])"
)


def language_of(text: str, languages: Sequence[str]) -> str:
    """Return which of the languages a text is in: by its script, the first one in doubt."""
    letters = sum(1 for c in text if c.isalpha()) or 1
    cjk = len(CJK.findall(text))
    # A Chinese question may hold a long English name, an English one seldom a Chinese word.
    if cjk / letters > 0.2 and "zh" in languages:
        return "zh"
    others = [language for language in languages if language != "zh"]
    return others[0] if cjk == 0 and others and letters > 1 else languages[0]


def squash(text: str) -> tuple[str, list[int]]:
    """Return the text as it is compared (NFKC, case-folded, blanks, dots, hyphens and quotes
    removed) and, for each character left, its place in the folded text."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    kept = [(c, i) for i, c in enumerate(folded) if not _IGNORED.match(c)]
    return "".join(c for c, _ in kept), [i for _, i in kept]


def mentions(text: str, alternative: str) -> bool:
    """Tell whether an alternative stands in a text; one in Latin letters as whole words only."""
    needle, _ = squash(alternative)
    if not needle:
        return False
    folded = unicodedata.normalize("NFKC", text).casefold()
    hay, places = squash(text)
    start = hay.find(needle)
    while start >= 0:
        first, last = places[start], places[start + len(needle) - 1]
        before_ok = first == 0 or not (_LATIN.match(needle[0]) and _LATIN.match(folded[first - 1]))
        after_ok = last + 1 >= len(folded) or not (_LATIN.match(needle[-1]) and _LATIN.match(folded[last + 1]))
        if before_ok and after_ok:
            return True
        start = hay.find(needle, start + 1)
    return False


def sentences(text: str) -> list[str]:
    """Return the sentences of a text, their end marks kept; joined they give the text back."""
    return [part for part in _SENTENCE_END.split(text) if part]


def printable(text: str) -> str:
    """Return the text without control, escape and direction-override characters."""
    return _CONTROL.sub("", text)


def bigrams(text: str) -> list[str]:
    """Return what a text is searched by: pairs of Chinese characters, and Latin words."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    tokens: list[str] = []
    for run in _RUN.findall(folded):
        if CJK.match(run):
            tokens.extend(run[i : i + 2] for i in range(max(1, len(run) - 1)))
        else:
            tokens.append(run)
    return tokens
