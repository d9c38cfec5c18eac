"""What a person typed: a command, a message, or nothing."""

from __future__ import annotations

from camelbell_core.errors import CamelBellError
from camelbell_core.text import printable

LONGEST = 20_000  # characters; more than any prompt holds


def read_message(typed: str) -> tuple[str, str]:
    """Return the command, or "" where there is none, and the text; a Chinese keyboard's ／ is a slash too.

    A text that shall begin with a slash is typed with two.
    """
    text = printable(typed).strip()
    if not text.startswith(("/", "／")):
        return "", text
    if text[1:2] in ("/", "／"):
        return "", text[1:]
    name, _, rest = text[1:].partition(" ")
    return f"/{name.lower()}", rest.strip()


def check_length(text: str) -> None:
    """Refuse a message of which a prompt would hold the end only."""
    if len(text) > LONGEST:
        raise CamelBellError(
            f"the message has {len(text):,} characters; at most {LONGEST:,} are read", "say it shorter"
        )
