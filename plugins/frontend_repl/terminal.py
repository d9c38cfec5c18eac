"""The loop of a terminal chat: read, answer, repeat."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any

from camelbell_core.errors import CamelBellError
from camelbell_plugins.frontend_repl.commands import LEAVE, commands_of
from camelbell_plugins.frontend_repl.completer import command_completer
from camelbell_plugins.frontend_repl.history import open_history
from camelbell_plugins.frontend_repl.keys import key_bindings
from camelbell_plugins.frontend_repl.message import check_length, read_message
from camelbell_plugins.frontend_repl.screen import Screen, typed_ahead
from camelbell_plugins.frontend_repl.toolbar import bottom_line, speed_of

if TYPE_CHECKING:
    from camelbell_core.opening import Opener
    from camelbell_core.session import Session

_SHOWN = 3  # turns of a conversation that is taken up


class Terminal:
    """A chat in a terminal; ``input`` and ``output`` are prompt_toolkit's, for tests."""

    def __init__(
        self,
        session: Session,
        opener: Opener | None = None,
        keep_history: bool = True,
        input: Any = None,
        output: Any = None,
    ) -> None:
        from prompt_toolkit.input import create_input
        from prompt_toolkit.output import create_output

        self.session = session
        self.opener = opener
        self.keep_history = keep_history
        self.input = input or create_input()
        self.output = output or create_output()
        self.screen = Screen(self.output)
        self.speed = ""
        self.commands = commands_of(self)
        self.prompt = self._open_prompt()

    @property
    def language(self) -> str:
        """The language that the terminal is set to, if the character speaks it, else the character's main one."""
        spoken = self.session.character.languages
        locale = next((os.environ[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if os.environ.get(name)), "")
        return locale[:2] if locale[:2] in spoken else spoken[0]

    def run(self) -> None:
        """Read, answer, repeat, until the person leaves."""
        with typed_ahead(self.input):
            self._greet()
            try:
                self._loop()
            finally:
                self.output.disable_bracketed_paste()
                self.output.flush()

    def _loop(self) -> None:
        while True:
            try:
                command, text = read_message(self._typed())
            except KeyboardInterrupt:
                continue  # Ctrl-C clears the line
            except EOFError:
                return
            try:
                if command:
                    if self._command(command, text) is LEAVE:
                        return
                elif text:
                    check_length(text)
                    self.answer(self.session.reply(text))
            except CamelBellError as error:
                self._show(error)

    def answer(self, pieces: Iterator[str]) -> None:
        """Show a reply as it comes; Ctrl-C stops it."""
        with self._stopped_by_ctrl_c():
            self.screen.wait()
            with suppress(KeyboardInterrupt):  # a second Ctrl-C
                for piece in pieces:
                    self.screen.write(piece)
            turn = self.session.turns[-1]
            if turn.stopped:
                self.screen.write(" …" if turn.answer else "(stopped)", "note")
            self.screen.write("\n")
        self.speed = speed_of(turn, self.session.model)

    def ask_again(self, text: str) -> str:
        """Let the person change a text, and return it, or "" if it was left as Ctrl-C or Ctrl-D leave it."""
        try:
            _, changed = read_message(self._typed(text))
        except (KeyboardInterrupt, EOFError):
            return ""
        check_length(changed)
        return str(changed)

    def meet(self, session: Session) -> None:
        """Talk in another session from now on."""
        self.session = session
        self.speed = ""
        self.prompt = self._open_prompt()
        self._greet()

    def opener_or_error(self) -> Opener:
        """Return what opens other sessions."""
        if self.opener is None:
            raise CamelBellError("this chat can open no other character or model", "start `camelbell chat` for it")
        return self.opener

    def show_last(self) -> None:
        """Show the last turns of a conversation that is taken up."""
        turns = self.session.turns
        if len(turns) > _SHOWN:
            self.screen.line(f"({len(turns) - _SHOWN} earlier turns)", "note")
        for turn in turns[-_SHOWN:]:
            self.screen.write("> ", "prompt")
            self.screen.write(turn.question + "\n")
            self.screen.line(turn.answer + (" …" if turn.stopped else ""))

    def _show(self, error: CamelBellError) -> None:
        self.screen.line(error.message, "error")
        if error.hint:
            self.screen.line(f"  {error.hint}", "note")

    def _greet(self) -> None:
        character, language = self.session.character, self.language
        self.screen.write(character.title(language), "name")
        self.screen.write(" · /help\n", "note")
        greeting = character.config.greeting.get(language)
        if self.session.turns:
            self.show_last()
        elif greeting:
            self.screen.line(character.fill(greeting, language).strip())

    def _typed(self, default: str = "") -> str:
        try:
            return str(self.prompt.prompt(default=default))
        finally:
            # A prompt ends it; what is pasted during an answer shall be one message too.
            self.output.enable_bracketed_paste()
            self.output.flush()

    def _command(self, name: str, rest: str) -> bool | None:
        if name not in self.commands:
            from camelbell_core.checked_yaml import suggest

            raise CamelBellError(f"there is no {name}{suggest(name, self.commands)}", "/help lists the commands")
        left: bool | None = self.commands[name].act(rest)
        return left

    def _open_prompt(self) -> Any:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.history import InMemoryHistory

        return PromptSession(
            [("class:prompt", "> ")],
            prompt_continuation=[("class:prompt", "  ")],
            multiline=True,
            history=open_history(self.session.character.name) if self.keep_history else InMemoryHistory(),
            completer=command_completer(lambda: self.commands),
            complete_while_typing=True,
            enable_open_in_editor=True,
            enable_suspend=True,
            key_bindings=key_bindings(self._show),
            style=self.screen.style,
            bottom_toolbar=self._toolbar,
            input=self.input,
            output=self.output,
        )

    def _toolbar(self) -> str:
        width = self.output.get_size().columns
        return str(bottom_line(self.session, self.language, self.speed, width))

    @contextmanager
    def _stopped_by_ctrl_c(self) -> Iterator[None]:
        """Let the first Ctrl-C ask the model to stop, and a second one interrupt it."""
        if current_thread() is not main_thread():
            yield
            return

        def stop(number: int, frame: Any) -> None:
            self.session.stop()
            signal.signal(number, signal.default_int_handler)

        before = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
