"""Conversations that are kept: JSONL in the user's data folder, to be resumed, branched and exported.

The first line says what the file is. Each further line is a turn that follows another one (``after``), or a step back
(``head``): what is taken back, answered again or edited stays in the file as a branch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Any

from camelbell_core.character import Character, data_dir
from camelbell_core.errors import CamelBellError
from camelbell_core.journal import Journal, read_rows
from camelbell_core.records import Message, Pair
from camelbell_core.session import Session, Turn

_VERSION = 1


def folder_of(character: str) -> Path:
    """Return where the conversations with a character are kept."""
    return data_dir() / "conversations" / character


class Conversation:
    """The log of a session: a file that begins with its first turn.

    When it cannot be written, ``warn`` is told once and nothing more is kept: the chat goes on.
    """

    def __init__(self, character: str, file: Path | None = None, warn: Callable[[str], None] = lambda text: None):
        now = datetime.now(UTC)
        self.character = character
        self.file = file or folder_of(character) / f"{now:%Y%m%d-%H%M%S}-{token_hex(2)}.jsonl"
        self.warn = warn
        self.broken = False

    def add(self, turn: Turn, after: Turn | None) -> None:
        """Write a turn and which one it follows."""
        row = {
            "id": turn.id,
            "after": after.id if after else None,
            "time": _now(),
            "question": turn.question,
            "answer": turn.answer,
            "language": turn.language,
            "at": str(turn.at) if turn.at else "",
            "facts": [fact.id for fact in turn.facts],
            "model": turn.model,
            "composed": turn.composed,
            "stopped": turn.stopped,
            "held_back": [{"filter": verdict.filter, "reason": verdict.reason} for verdict in turn.verdicts],
            "seconds": round(turn.seconds, 3),
        }
        self._write(row)

    def back(self, turn: Turn | None) -> None:
        """Write that the conversation goes on after this turn, or from its beginning."""
        if self.file.exists():
            self._write({"head": turn.id if turn else None, "time": _now()})

    def _write(self, row: dict[str, Any]) -> None:
        if self.broken:
            return
        try:
            new = not self.file.exists()
            if new:
                self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with Journal(self.file) as journal:
                if new:
                    journal.append({"conversation": _VERSION, "character": self.character, "started": _now()})
                journal.append(row)
        except (CamelBellError, OSError) as error:
            self.broken = True
            self.warn(f"this conversation is no longer kept: {error}")


@dataclass(slots=True)
class Branches:
    """A conversation as it was read: its turns by id in the order they were said, and where it goes on."""

    file: Path
    started: str
    turns: dict[str, dict[str, Any]] = field(default_factory=dict)
    head: str | None = None

    @property
    def id(self) -> str:
        """The name by which commands know it."""
        return self.file.stem

    @property
    def ends(self) -> list[str]:
        """The last turn of every branch: that where it goes on, then the others, the newest first."""
        followed = {row["after"] for row in self.turns.values()}
        ends = [turn for turn in reversed(self.turns) if turn not in followed and turn != self.head]
        return [*([self.head] if self.head else []), *ends]

    def branch(self, end: str | None) -> list[dict[str, Any]]:
        """Return the turns that lead to one, the first one first."""
        rows: list[dict[str, Any]] = []
        while end is not None:
            rows.append(self.turns[end])
            end = rows[-1]["after"]
        return rows[::-1]


def read_conversation(file: Path) -> Branches:
    """Read a conversation; a line that is none of ours is an error that names it."""
    kept = Branches(file, "")
    for number, row in read_rows(file):
        try:
            _take(kept, row)
        except (KeyError, TypeError, ValueError) as error:
            raise CamelBellError(f"{file}:{number}: this is no line of a conversation: {error!r}") from error
    return kept


def _take(kept: Branches, row: dict[str, Any]) -> None:
    """Add a line of the file to what was read before it."""
    if "conversation" in row:
        if row["conversation"] != _VERSION:
            raise ValueError(f"version {row['conversation']!r} is not known here")
        kept.started = str(row["started"])
        return
    place = row["head"] if "head" in row else row["after"]
    if place is not None and place not in kept.turns:
        raise ValueError(f"there is no turn {place!r} before it")
    if "head" not in row:
        place = str(row["id"])
        if not all(isinstance(row[key], str) for key in ("question", "answer", "language")):
            raise TypeError("question, answer and language are texts")
        if place in kept.turns:
            raise ValueError(f"the turn {place!r} stands there twice")
        kept.turns[place] = row
    kept.head = place


def conversations(character: str) -> Iterator[Branches]:
    """Yield the conversations with a character, the newest first; files that cannot be read are left out."""
    files: list[tuple[float, Path]] = []
    for file in folder_of(character).glob("*.jsonl"):
        with suppress(OSError):  # deleted since it was listed
            files.append((file.stat().st_mtime, file))
    for _, file in sorted(files, reverse=True):
        with suppress(CamelBellError):
            kept = read_conversation(file)
            if kept.turns:
                yield kept


def find_conversation(character: str, name: str) -> Branches:
    """Return a conversation by its id, or by the beginning of one."""
    found = sorted(folder_of(character).glob("*.jsonl"))
    matching = [file for file in found if file.stem == name] or [f for f in found if name and f.stem.startswith(name)]
    if len(matching) == 1:
        return read_conversation(matching[0])
    what = f"{len(matching)} conversations begin with" if matching else f"there is no conversation with {character}"
    raise CamelBellError(f"{what} {name!r}", f"see `camelbell conversations {character}`")


def begin(session: Session) -> None:
    """Begin a new conversation; where the one before was kept, this one is too."""
    session.turns.clear()
    if isinstance(session.log, Conversation):
        session.log = Conversation(session.character.name, warn=session.log.warn)


def resume(session: Session, kept: Branches, end: str | None) -> None:
    """Take a kept branch up in a session: its turns are the history, and what is said next follows them."""
    session.turns = [turn_of(row, session.character) for row in kept.branch(end)]
    if isinstance(session.log, Conversation):
        session.log = Conversation(session.character.name, kept.file, session.log.warn)
        if end != kept.head:
            session.log.back(session.turns[-1] if session.turns else None)


def turn_of(row: dict[str, Any], character: Character) -> Turn:
    """Return the turn that a line holds; facts and story times that the canon no longer has are left out."""
    turn = Turn(row["question"], row["language"], row["answer"], id=str(row["id"]), model=str(row.get("model", "")))
    facts = character.canon.facts
    turn.facts = tuple(facts[fact] for fact in row.get("facts") or () if fact in facts)
    turn.composed, turn.stopped = bool(row.get("composed")), bool(row.get("stopped"))
    with suppress(CamelBellError):
        turn.at = character.canon.point(row["at"]) if row.get("at") else None
    return turn


def training_pairs(turns: Sequence[Turn], history: int = 4) -> list[Pair]:
    """Return each whole reply as a pair, with up to ``history`` turns said before it; stopped ones are left out."""
    pairs: list[Pair] = []
    said: list[str] = []
    for turn in turns:
        if not turn.answer:
            continue
        if not turn.stopped:
            facts = tuple(fact.id for fact in turn.facts)
            before = tuple(said[-2 * history :] if history else ())
            at = str(turn.at) if turn.at else ""
            teacher = "composed" if turn.composed else "model"
            pairs.append(
                Pair(
                    turn.question, turn.answer, turn.language, "chat", facts, teacher=teacher, model=turn.model,
                    generator="chat", at=at, history=before,
                )
            )  # fmt: skip
        said += [turn.question, turn.answer]
    return pairs


def messages(turns: Sequence[Turn]) -> list[Message]:
    """Return all that was said, as messages."""
    return [
        message for turn in turns for message in (Message("user", turn.question), Message("assistant", turn.answer))
    ]


def _now() -> str:
    return datetime.now(UTC).astimezone().isoformat(timespec="seconds")
