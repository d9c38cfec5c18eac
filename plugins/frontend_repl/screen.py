"""What is written on the terminal: never a control character, in colours unless NO_COLOR says no."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from camelbell_core.text import printable

STYLES = {
    "prompt": "ansicyan bold",
    "note": "ansibrightblack",
    "error": "ansired",
    "name": "bold",
    "bottom-toolbar": "noreverse",
    "bottom-toolbar.text": "noreverse",
}
_WAITING = "..."  # three cells wide in every font, as … is not


class Screen:
    """Writes to an output of prompt_toolkit."""

    def __init__(self, output: Any) -> None:
        from prompt_toolkit.styles import Style, default_ui_style, merge_styles

        self.output = output
        self.style = merge_styles([default_ui_style(), Style.from_dict(STYLES)])
        self._waits = False
        self._within = False  # a line

    def write(self, text: str, style: str = "") -> None:
        """Write text as it is, in a style by its name."""
        self._erase_waiting()
        if style:
            attributes = self.style.get_attrs_for_style_str(f"class:{style}")
            self.output.set_attributes(attributes, self.output.get_default_color_depth())
        self.output.write(printable(text))
        self._within = not text.endswith("\n") if text else self._within
        if style:
            self.output.reset_attributes()
        self.output.flush()

    def line(self, text: str, style: str = "") -> None:
        """Write a line of its own."""
        self.end_line()
        self.write(text, style)
        self.write("\n")

    def end_line(self) -> None:
        """Go to the next line, if something stands in this one."""
        self._erase_waiting()
        if self._within:
            self.write("\n")

    def wait(self) -> None:
        """Show that an answer is on its way, until something is written."""
        self.output.write_raw(_WAITING)
        self.output.flush()
        self._waits = True

    def _erase_waiting(self) -> None:
        if self._waits:
            self._waits = False
            self.output.cursor_backward(len(_WAITING))
            self.output.erase_end_of_line()


@contextmanager
def typed_ahead(source: Any) -> Iterator[None]:
    """Let what is typed between two prompts wait, unseen, for the next one; Ctrl-C still interrupts."""
    if sys.platform == "win32" or not _is_terminal(source):
        yield
        return
    import termios

    descriptor = source.fileno()
    before = termios.tcgetattr(descriptor)
    mode = termios.tcgetattr(descriptor)
    mode[0] &= ~(termios.ICRNL | termios.IXON)  # Enter arrives as prompt_toolkit expects it
    mode[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN)
    termios.tcsetattr(descriptor, termios.TCSANOW, mode)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)


def _is_terminal(source: Any) -> bool:
    import os

    try:
        return os.isatty(source.fileno())
    except (OSError, NotImplementedError, ValueError):
        return False
