"""How a command line opens sessions: a frontend may open another character or another base by the same choices."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from camelbell_core.conversations import Conversation
from camelbell_core.session import Session, Settings, open_session

if TYPE_CHECKING:
    from camelbell_core.pipeline import Run
    from camelbell_core.roles import LanguageModel


@dataclass(frozen=True, kw_only=True)
class Opener:
    """Opens sessions; ``open_run`` and ``open_model`` are the command line's, ``warn`` tells what goes wrong on the way.

    ``characters`` and ``bases`` give the names that can be opened, each with a line about it.
    """

    open_run: Callable[[str], Run]
    open_model: Callable[[Run, str], LanguageModel]
    characters: Callable[[], Iterable[tuple[str, str]]]
    bases: Callable[[], Iterable[tuple[str, str]]]
    settings: Settings
    memory: bool = True
    guard: bool = True
    log: bool = True
    warn: Callable[[str], None] = lambda text: None

    def open(self, name: str, base: str = "") -> Session:
        """Return a session with a character, on a base (default: the bundle's)."""
        run = self.open_run(name)
        model = self.open_model(run, base)
        session = open_session(
            run.character, run.registry, model, memory=self.memory, guard=self.guard, settings=self.settings
        )
        if self.log:
            session.log = Conversation(name, warn=self.warn)
        return session
