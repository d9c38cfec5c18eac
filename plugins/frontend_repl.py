"""The ``repl`` chat frontend: a terminal with history, completion and streaming; plain lines without one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from camelbell_core import hookimpl
from camelbell_core.roles import ChatFrontend

if TYPE_CHECKING:
    from camelbell_core.session import Session


@dataclass(kw_only=True)
class Repl(ChatFrontend):
    """A terminal chat by prompt_toolkit; where there is no terminal, one answer a line of input."""

    name: ClassVar[str] = "repl"
    history: bool = True

    def run(self, session: Session) -> None:
        """Talk until /quit, Ctrl-D or the end of the input."""
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            talk_plainly(session)
            return
        try:
            Terminal(session, keep_history=self.history).run()
        except _no_console():
            talk_plainly(session)


def talk_plainly(session: Session) -> None:
    """Answer each line of standard input with one line; an empty line is skipped."""
    for line in sys.stdin:
        if line.strip():
            print(" ".join(session.ask(line.strip()).split()), flush=True)


class Terminal:
    """The loop of a terminal chat; ``input`` and ``output`` are prompt_toolkit's, for tests."""

    def __init__(self, session: Session, keep_history: bool = True, input: Any = None, output: Any = None) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import Completer, Completion
        from prompt_toolkit.history import FileHistory, InMemoryHistory
        from prompt_toolkit.output import create_output

        from camelbell_core.character import data_dir

        self.session = session
        self.output = output or create_output()
        commands = {name: (what, act) for name, what, act in self._commands()}
        self.commands = commands

        class Slash(Completer):
            def get_completions(self, document: Any, event: Any) -> Iterator[Completion]:
                text = document.text_before_cursor
                if text.startswith("/") and " " not in text:
                    for name, (what, _) in commands.items():
                        if name.startswith(text):
                            yield Completion(name, -len(text), display_meta=what)

        history: Any = InMemoryHistory()
        if keep_history:
            folder = data_dir() / "history"
            folder.mkdir(parents=True, exist_ok=True)
            history = FileHistory(str(folder / f"{session.character.name}.txt"))
        self.prompt: PromptSession[str] = PromptSession(
            history=history,
            completer=Slash(),
            complete_while_typing=True,
            bottom_toolbar=self._toolbar,
            input=input,
            output=self.output,
        )

    def run(self) -> None:
        """Read, answer, repeat."""
        config = self.session.character.config
        language = self.session.character.languages[0]
        self._write(f"{self.session.character.title(language)} · /help\n")
        if greeting := config.greeting.get(language):
            self._write(self.session.character.fill(greeting, language).strip() + "\n")
        while True:
            try:
                text = self.prompt.prompt("> ").strip()
            except KeyboardInterrupt:
                continue  # Ctrl-C clears the line
            except EOFError:
                return
            if text.startswith("/"):
                if not self._command(text):
                    return
            elif text:
                self._stream(self.session.reply(text))

    def _commands(self) -> list[tuple[str, str, Callable[[str], bool | None]]]:
        return [
            ("/help", "what you can type", self._help),
            ("/facts", "what the last answer rests on", self._facts),
            ("/reset", "forget this conversation", lambda rest: self.session.reset()),
            ("/retry", "answer the last question again", self._retry),
            ("/save", "write this conversation to a JSONL file: /save FILE", self._save),
            ("/quit", "leave (Ctrl-D does too)", lambda rest: False),
        ]

    def _command(self, text: str) -> bool:
        name, _, rest = text.partition(" ")
        if name not in self.commands:
            from camelbell_core.checked_yaml import suggest

            self._write(f"there is no {name}{suggest(name, self.commands)}; /help lists the commands\n")
            return True
        return self.commands[name][1](rest.strip()) is not False

    def _help(self, rest: str) -> None:
        width = max(map(len, self.commands))
        self._write("".join(f"{name:<{width}}  {what}\n" for name, (what, _) in self.commands.items()))
        self._write("Ctrl-C stops an answer; the arrow keys and Ctrl-R search what you typed before\n")

    def _facts(self, rest: str) -> None:
        turn = self.session.turns[-1] if self.session.turns else None
        if turn is None or not turn.facts:
            self._write("the last answer rests on no fact\n" if turn else "nothing has been said yet\n")
            return
        for fact in turn.facts:
            source = f"  [{fact.source}]" if fact.source else ""
            self._write(f"- {fact.text.get(turn.language) or fact.told(turn.language)}{source}\n")
        for verdict in turn.verdicts:
            self._write(f"  held back by {verdict.filter}: {verdict.reason}\n")
        if turn.composed:
            self._write("  composed from the facts alone\n")

    def _retry(self, rest: str) -> None:
        if not self.session.turns:
            self._write("nothing has been said yet\n")
            return
        self._stream(self.session.retry())

    def _save(self, rest: str) -> None:
        from camelbell_core.errors import CamelBellError
        from camelbell_core.journal import write_text

        file = Path(rest or f"{self.session.character.name}-chat.jsonl")
        row = [{"role": "user", "content": t.question} for t in self.session.turns]
        replies = [{"role": "assistant", "content": t.answer} for t in self.session.turns]
        messages = [message for both in zip(row, replies, strict=True) for message in both]
        try:
            file = file.expanduser()
            if file.is_dir():
                self._write(f"{file} is a folder; name a file\n")
                return
            write_text(file, json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
        except CamelBellError as error:
            self._write(f"{error.message}\n")
            return
        except (OSError, RuntimeError) as error:  # RuntimeError: there is no such user as in ~user
            self._write(f"cannot write {file}: {error}\n")
            return
        self._write(f"{len(self.session.turns)} turns written to {file}\n")

    def _stream(self, pieces: Iterator[str]) -> None:
        try:
            for piece in pieces:
                self._write(piece)
        except KeyboardInterrupt:
            self.session.stop()
            with suppress(KeyboardInterrupt):  # a second Ctrl-C
                for _ in pieces:
                    pass
            self._write(" …")
        self._write("\n")

    def _write(self, text: str) -> None:
        self.output.write(text)  # the output of prompt_toolkit writes escape characters as ?
        self.output.flush()

    def _toolbar(self) -> str:
        session = self.session
        adapter = "with adapter" if session.model.adapter else "no adapter"
        at = f" · at {session.settings.at}" if session.settings.at else ""
        return f" {session.character.title(session.character.languages[0])} · {session.model.name} · {adapter}{at} "


def _no_console() -> tuple[type[Exception], ...]:
    """Return the error of a Windows shell without a console, which exists on Windows only."""
    if sys.platform == "win32":
        from prompt_toolkit.output.win32 import NoConsoleScreenBufferError

        return (NoConsoleScreenBufferError,)
    return ()


@hookimpl
def register_chat_frontends() -> list[type[ChatFrontend]]:
    """Offer the terminal."""
    return [Repl]
