"""The keys of the terminal: Enter sends, Alt-Enter begins a new line, and too long a paste is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from camelbell_core.errors import CamelBellError
from camelbell_plugins.frontend_repl.message import check_length


def key_bindings(show: Callable[[CamelBellError], None]) -> Any:
    """Return the bindings that differ from prompt_toolkit's own; ``show`` writes what is wrong above the prompt."""
    from prompt_toolkit.application import run_in_terminal
    from prompt_toolkit.enums import DEFAULT_BUFFER
    from prompt_toolkit.filters import completion_is_selected, has_focus
    from prompt_toolkit.key_binding import KeyBindings
    from prompt_toolkit.keys import Keys

    bindings = KeyBindings()
    typing = has_focus(DEFAULT_BUFFER)

    @bindings.add("enter", filter=typing & ~completion_is_selected)
    def send(event: Any) -> None:
        event.current_buffer.validate_and_handle()

    @bindings.add("enter", filter=typing & completion_is_selected)
    def take_completion(event: Any) -> None:
        event.current_buffer.complete_state = None

    @bindings.add("escape", "enter", filter=typing)
    def new_line(event: Any) -> None:
        event.current_buffer.newline(copy_margin=False)

    @bindings.add(Keys.BracketedPaste, filter=typing)
    def paste(event: Any) -> None:
        text = event.data.replace("\r\n", "\n").replace("\r", "\n")
        try:
            check_length(text)
        except CamelBellError as error:
            refused = error
            run_in_terminal(lambda: show(refused))
        else:
            event.current_buffer.insert_text(text)

    return bindings
