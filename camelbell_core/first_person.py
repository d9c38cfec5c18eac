"""A statement about the character, said by the character: "Harry wears glasses" becomes "I wear glasses"."""

from __future__ import annotations

import re

from camelbell_core.names import NameIndex

# A statement with a pronoun may mean the character by it, or somebody else: it is left alone.
_PRONOUN = re.compile(r"[他她]|\b(?:he|him|his|himself|she|her|hers|herself|who|whom)\b", re.IGNORECASE)
_SUBJECT = re.compile(
    r"\s+(?:was|had|did|could|would|should|might|must|may|can|will|never|once|first|also|always|only|\w+ed|ate|became|began|bought|broke|brought|"
    r"came|cast|caught|chose|cut|drank|drove|dug|fell|felt|flew|fought|found|gave|got|grew|heard|held|hid|hit|kept|knew|"
    r"learnt|led|left|let|lost|made|met|put|ran|read|rode|said|saw|sent|set|slept|spent|spoke|stole|stood|swam|swung|"
    r"threw|thought|told|took|understood|went|woke|won|wore|wrote)\b"
)
_OBJECT = re.compile(
    r"\b(?:gave|told|showed|sent|with|for|of|to|from|about|at|by|on|than|except)\s+$"
)  # what stands before
_LEFT_ALONE = re.compile(r"\b(?:and|name is)\s+$|,\s+$|\b(?:the|a)\s+\w+\s+$")
_PRESENT = {"is": "am", "has": "have", "isn't": "am not", "hasn't": "haven't", "doesn't": "don't", "does": "do"}
_NO_VERBS = ("as", "its", "this", "always", "besides", "towards", "sometimes")
_THIRD = re.compile(r"\s+(\w+s|\w+n't)\b")


def in_first_person(text: str, language: str, names: NameIndex, me: str) -> str:
    """Return a statement as the character itself would say it, or "" where grammar leaves that in doubt."""
    spans = sorted({(m.start, m.end) for m in names.find(text) if m.entity == me}, reverse=True)
    if not spans:
        return text
    if _PRONOUN.search(text) or language not in ("zh", "en"):
        return ""
    for start, end in spans:
        if owner := re.search(r"['’]s?$", text[start:end]):
            end -= len(owner[0])
        after = text[end:]
        if language == "zh":
            text = f"{text[:start]}我{after}"
            continue
        if re.match(r"\s+and\b|,", after) or _LEFT_ALONE.search(text[:start]):
            return ""
        word, rest = _english(after, bool(_OBJECT.search(text[:start])))
        if not word or (not start and word == "me"):
            return ""
        text = text[:start] + (word[:1].upper() + word[1:] if not start else word) + rest
    return text


def _english(after: str, is_object: bool) -> tuple[str, str]:
    """Return the pronoun for a name, by what stands around it, and what stands after the pronoun; "" is doubt."""
    if own := re.match(r"['’]s?\b|['’]", after):
        return "my", after[own.end() :]
    if is_object:
        return "me", after
    if _SUBJECT.match(after):
        return "I", after
    if (third := _THIRD.match(after)) and third[1] not in _NO_VERBS:
        verb = third[1]
        regular = "" if verb.endswith(("ies", "ss", "n't")) else re.sub(r"(?<=[sxzh])es$|s$", "", verb)
        plain = _PRESENT.get(verb, regular)
        return ("I", f" {plain}{after[third.end() :]}") if plain else ("", "")
    return "me", after
