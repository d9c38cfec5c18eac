"""The commands of the terminal: what each is called, what it does, what can stand after it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from camelbell_core import conversations
from camelbell_core.errors import CamelBellError
from camelbell_core.journal import write_rows, write_text
from camelbell_core.records import Point, to_row
from camelbell_plugins.frontend_repl import explain

if TYPE_CHECKING:
    from camelbell_core.conversations import Branches
    from camelbell_plugins.frontend_repl.terminal import Terminal

LEAVE = False
_LISTED = 20  # conversations
_END = ("end", "now", "off")


@dataclass(frozen=True, slots=True)
class Command:
    """What a command does with the text after its name; it returns LEAVE to end the chat."""

    what: str
    act: Callable[[str], bool | None]
    offers: Callable[[str], Iterable[tuple[str, str]]] | None = None
    takes_file: bool = False


def commands_of(terminal: Terminal) -> dict[str, Command]:
    """Return the commands of a terminal by name, as /help lists them."""
    do = _Commands(terminal)
    return {
        "/help": Command("what you can type", do.help),
        "/character": Command("talk to another character: /character NAME", do.character, do.characters),
        "/at": Command("go to a point of the story: /at 3-22, or back to its end: /at end", do.at, do.times),
        "/facts": Command("what the last answer rests on", do.facts),
        "/why": Command("how the last answer came about: prompt, tries, guard", do.why),
        "/retry": Command("answer the last question again", do.retry),
        "/undo": Command("take the last turn back, or the last ones: /undo 3", do.undo),
        "/edit": Command("ask the last question in other words", do.edit),
        "/load": Command("go on with an earlier conversation: /load lists them, /load 2", do.load, do.kept),
        "/save": Command("write this conversation to a JSONL file: /save FILE", do.save, takes_file=True),
        "/export": Command("write it as training pairs: /export FILE", do.export, takes_file=True),
        "/model": Command("talk on with another base model: /model NAME", do.model, do.models),
        "/reset": Command("begin a new conversation", do.reset),
        "/quit": Command("leave (Ctrl-D does too)", lambda rest: LEAVE),
    }


class _Commands:
    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self._kept: list[Branches] | None = None

    def _say(self, text: str) -> None:
        self.terminal.screen.line(text)

    def help(self, rest: str) -> None:
        commands = self.terminal.commands
        width = max(map(len, commands))
        for name, command in commands.items():
            self._say(f"{name:<{width}}  {command.what}")
        self._say("Enter sends, Alt-Enter begins a new line, Ctrl-C stops an answer, Ctrl-R searches what was typed,")
        self._say("Ctrl-X Ctrl-E opens your editor; a message that begins with a slash is typed with two")

    # --- who talks, and when ----------------------------------------------------------------------

    def character(self, rest: str) -> None:
        if not rest:
            for name, about in self.characters(""):
                self._say(f"{'*' if name == self.terminal.session.character.name else ' '} {name:<16} {about}")
            return
        session = self.terminal.opener_or_error().open(rest)
        self.terminal.meet(session)

    def characters(self, rest: str) -> Iterable[tuple[str, str]]:
        opener = self.terminal.opener
        character = self.terminal.session.character
        return opener.characters() if opener else [(character.name, " / ".join(character.config.name.values()))]

    def at(self, rest: str) -> None:
        terminal = self.terminal
        canon, session = terminal.session.character.canon, terminal.session
        if rest:
            session.travel(None if rest.lower() in _END else canon.point(rest))
        now = session.settings.at
        if now:
            self._say(f"the story is at {canon.place(now, terminal.language)} ({now})")
        else:
            last = f"; /at 1-1 to /at {len(canon.chapters)}-{canon.chapters[-1]}" if canon.chapters else ""
            self._say(f"the story is over{last}")

    def times(self, rest: str) -> Iterable[tuple[str, str]]:
        canon, language = self.terminal.session.character.canon, self.terminal.language
        part, dash, _ = rest.partition("-")
        if dash and part.isdecimal() and 1 <= int(part) <= len(canon.chapters):
            points = [Point(int(part), chapter + 1) for chapter in range(canon.chapters[int(part) - 1])]
        else:
            points = [Point(number, last) for number, last in enumerate(canon.chapters, 1)]
        yield from ((str(point), canon.place(point, language)) for point in points)
        if points:
            yield "end", "the story is over"

    def model(self, rest: str) -> None:
        session = self.terminal.session
        if not rest:
            adapter = f"with the adapter {session.model.adapter}" if session.model.adapter else "without an adapter"
            self._say(f"{session.model.name} talks, {adapter}")
            for name, about in self.models(""):
                self._say(f"  {name:<16} {about}")
            return
        other = self.terminal.opener_or_error().open(session.character.name, rest)
        other.turns, other.log, other.settings = session.turns, session.log, session.settings
        self.terminal.session = other
        self._say(f"{other.model.name} talks on" + ("" if other.model.adapter else ", without an adapter"))

    def models(self, rest: str) -> Iterable[tuple[str, str]]:
        return self.terminal.opener.bases() if self.terminal.opener else []

    # --- the last answer --------------------------------------------------------------------------

    def facts(self, rest: str) -> None:
        self._explain(explain.facts_of)

    def why(self, rest: str) -> None:
        self._explain(explain.why)

    def _explain(self, lines: Callable[..., Iterable[str]]) -> None:
        session = self.terminal.session
        if not session.turns:
            raise CamelBellError("nothing has been said yet", "ask something first")
        for line in lines(session.turns[-1], session.character):
            self._say(line)

    def retry(self, rest: str) -> None:
        self.terminal.answer(self.terminal.session.retry())

    def edit(self, rest: str) -> None:
        session = self.terminal.session
        if not session.turns:
            raise CamelBellError("nothing has been said yet", "ask something first")
        text = rest or self.terminal.ask_again(session.turns[-1].question)
        if text:
            self.terminal.answer(session.edit(text))

    def undo(self, rest: str) -> None:
        session = self.terminal.session
        if rest and not (rest.isdecimal() and int(rest)):
            raise CamelBellError(
                f"{rest!r} is no number of turns", "/undo takes the last one back, /undo 3 the last three"
            )
        if not session.turns:
            raise CamelBellError("nothing has been said yet")
        for turn in session.undo(int(rest or 1)):
            self._say(f"taken back: {_short(turn.question)}")

    # --- conversations ----------------------------------------------------------------------------

    def reset(self, rest: str) -> None:
        conversations.begin(self.terminal.session)
        self._say("a new conversation")

    def load(self, rest: str) -> None:
        session = self.terminal.session
        self._kept = kept = self._listed()
        if not rest:
            for number, one in enumerate(kept, 1):
                self._say(f"{number:>3}  {_told(one)}")
            self._say("/load NUMBER goes on with one" if kept else "no conversation is kept yet")
            return
        name, _, branch = rest.partition(".")
        if name.isdecimal() and 1 <= int(name) <= len(kept):
            one = kept[int(name) - 1]
        else:
            one = conversations.find_conversation(session.character.name, name)
        if branch and not (branch.isdecimal() and 1 <= int(branch) <= len(one.ends)):
            raise CamelBellError(f"it has no branch {branch!r}", f"branches: 1 to {len(one.ends)}")
        conversations.resume(session, one, one.ends[int(branch) - 1] if branch else one.head)
        self.terminal.show_last()
        for number, end in enumerate(one.ends, 1):
            if end != (session.turns[-1].id if session.turns else None):
                turns = one.branch(end)
                last = f"{_short(turns[-1]['question'])} → {_short(turns[-1]['answer'])}"
                self._say(f"another branch: /load {name}.{number}  {_count(len(turns), 'turn')}  {last}")

    def kept(self, rest: str) -> Iterable[tuple[str, str]]:
        self._kept = self._kept if self._kept is not None else self._listed()
        return [(str(number), _told(one)) for number, one in enumerate(self._kept, 1)]

    def _listed(self) -> list[Branches]:
        kept = conversations.conversations(self.terminal.session.character.name)
        return [one for _, one in zip(range(_LISTED), kept, strict=False)]

    def save(self, rest: str) -> None:
        session = self.terminal.session
        file = _file(rest or f"{session.character.name}-chat.jsonl")
        row = {"messages": [asdict(message) for message in conversations.messages(session.turns)]}
        write_text(file, json.dumps(row, ensure_ascii=False) + "\n")
        self._say(f"{_count(len(session.turns), 'turn')} written to {file}")

    def export(self, rest: str) -> None:
        session = self.terminal.session
        file = _file(rest or f"{session.character.name}-pairs.jsonl")
        pairs = conversations.training_pairs(session.turns, session.settings.turns)
        write_rows(file, map(to_row, pairs))
        self._say(
            f"{_count(len(pairs), 'pair')} written to {file}; camelbell train {session.character.name} --pairs {file}"
        )


def _file(name: str) -> Path:
    try:
        file = Path(name).expanduser()
        if file.is_dir():
            raise CamelBellError(f"{file} is a folder; name a file")
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no such user as in ~user
        raise CamelBellError(f"cannot write {name}: {error}") from error
    return file


def _told(kept: Branches) -> str:
    turns = kept.branch(kept.head) or [kept.turns[kept.ends[0]]]
    branches = f", {len(kept.ends)} branches" if len(kept.ends) > 1 else ""
    return (
        f"{kept.started[:16].replace('T', ' ')}  {_count(len(turns), 'turn')}{branches}  {_short(turns[0]['question'])}"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 40 else line[:39] + "…"
