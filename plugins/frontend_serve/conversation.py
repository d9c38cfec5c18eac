"""From the messages of a request to the turns of a session: who said what, and what is asked now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from camelbell_core.prompts import merge_turns
from camelbell_core.records import Message
from camelbell_core.text import printable
from camelbell_plugins.frontend_serve.wire import ChatMessage, Refusal

LONGEST = 8_000  # characters of one message


@dataclass(frozen=True, slots=True)
class Conversation:
    """What was said before, as pairs of question and answer, what is asked now, and the roles without effect."""

    turns: tuple[tuple[str, str], ...]
    question: str
    ignored: tuple[str, ...] = ()


def read_conversation(messages: Sequence[ChatMessage], longest: int = LONGEST) -> Conversation:
    """Return the conversation that messages hold; one that cannot be answered is a ``Refusal``.

    System and developer messages are left out, neighbours of one role are joined, and what the assistant
    said before the first question (a greeting) leaves the history. Control characters are taken out.
    """
    said: list[Message] = []
    ignored: list[str] = []
    for number, message in enumerate(messages):
        place = f"messages[{number}]"
        if message.role in ("tool", "function"):
            raise Refusal(400, f"a character calls no tools, so {place} has a role without use", "unsupported", place)
        text = _text(message, place, longest)
        if message.role in ("user", "assistant"):
            said += [Message(message.role, text)] if text else []
        elif message.role not in ignored:
            ignored.append(message.role)
    last = next((number for number in reversed(range(len(messages))) if messages[number].role == "user"), None)
    if last is None or not _text(messages[last], "", longest):
        where = f"messages[{last}]" if last is not None else "messages"
        raise Refusal(400, "the message is empty: there is nothing to answer", "empty_message", where)
    merged = list(merge_turns(said))
    if merged[-1].role != "user":
        raise Refusal(400, "the last message must be the user's", "invalid_value", "messages")
    if merged[0].role == "assistant":
        merged = merged[1:]
    *before, question = (message.content for message in merged)
    if len(question) > longest:
        question = question[-longest:]  # neighbours joined
    return Conversation(tuple(zip(before[::2], before[1::2], strict=True)), question, tuple(ignored))


def _text(message: ChatMessage, place: str, longest: int) -> str:
    """Return a message's text without control characters, or refuse one that is no text or too long."""
    content = message.content
    if isinstance(content, list):
        for part in content:
            if part.type not in ("text", "input_text"):
                raise Refusal(400, f"a character reads text only, no {part.type[:40]!r}", "unsupported", place)
        content = "\n".join(part.text or "" for part in content)
    text = (content or "").encode("utf-8", "replace").decode("utf-8")
    if len(text) > longest and message.role in ("user", "assistant"):
        what = f"{place} has {len(text)} characters, and {longest} are allowed"
        raise Refusal(400, what, "string_above_max_length", place)
    return printable(text).strip()
