"""Replies that are numbered lists, read strictly."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from camelbell_core.text import language_of, sentences

if TYPE_CHECKING:
    from camelbell_core.service.replies import Reply

_ITEM = re.compile(r"\s*\**(\d{1,3})\s*[.、．:：)）]\**\s*(\S.*?)\s*")
_QUOTES = "\"'“”‘’「」『』*"
_LENGTHS = {"zh": (4, 80)}  # characters of a question, by language
_OTHER_LENGTHS = (8, 300)


@dataclass(frozen=True, slots=True)
class Listed:
    """The items of a reply; ``wrong`` says why it is malformed, "" if it is not."""

    items: tuple[str, ...]
    wrong: str = ""


def read_list(reply: Reply, wanted: int) -> Listed:
    """Return the items of a numbered list that counts from 1, one a line; what was cut off at the end is left out.

    A reply of another form, or with less than half or more than all of the items wanted, is malformed.
    """
    lines = [line for line in reply.text.splitlines() if line.strip()]
    found = [(match, line) for line in lines if (match := _ITEM.fullmatch(line))]
    items = [match[2].strip(_QUOTES).strip() for match, _ in found]
    numbers = [int(match[1]) for match, _ in found]
    if not numbers:
        return Listed((), "no numbered list")
    if numbers != list(range(1, len(numbers) + 1)):
        return Listed((), f"numbered {', '.join(map(str, numbers[:12]))}")
    if len(found) < len(lines) - 2:  # a line before and one after are manners
        return Listed((), f"{len(lines) - len(found)} lines are no items")
    if reply.finish == "length" and found[-1][1] == lines[-1]:
        items.pop()
    if not wanted / 2 <= len(items) <= wanted:
        return Listed((), f"{len(items)} items, {wanted} were asked for")
    return Listed(tuple(items))


def why_no_question(text: str, language: str, languages: list[str]) -> str:
    """Return why a text is not one question in a language, "" if it is."""
    least, most = _LENGTHS.get(language, _OTHER_LENGTHS)
    if not least <= len(text) <= most:
        return "too short" if len(text) < least else "too long"
    if language_of(text, languages) != language:
        return "in another language"
    if not text.endswith(("?", "？")) and language != "zh":
        return "no question"
    if any(mark in text for mark in "[]{}<>|") or len(sentences(text)) > 3:
        return "of another form"
    return ""
