"""Completion: commands with what they do, and what can stand after them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from camelbell_plugins.frontend_repl.commands import Command


def command_completer(commands: Callable[[], dict[str, Command]]) -> Any:
    """Return a completer of prompt_toolkit; nothing is offered within a message."""
    from prompt_toolkit.completion import Completer, Completion, PathCompleter
    from prompt_toolkit.document import Document

    files = PathCompleter(expanduser=True)

    class Slash(Completer):
        def get_completions(self, document: Any, event: Any) -> Iterable[Completion]:
            text = document.text_before_cursor.replace("／", "/", 1)
            name, blank, rest = text.partition(" ")
            if not text.startswith("/") or "\n" in text:
                return
            if not blank:
                for known, command in commands().items():
                    if known.startswith(name.lower()):
                        yield Completion(known, -len(text), display_meta=command.what)
                return
            command = commands().get(name.lower())
            if command and command.takes_file:
                yield from files.get_completions(Document(rest, len(rest)), event)
            elif command and command.offers:
                for word, about in command.offers(rest):
                    if word.startswith(rest):
                        yield Completion(word, -len(rest), display_meta=about)

    return Slash()
