"""What a plugin can extend: the hooks, and the two pluggy markers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from camelbell_core.character import Character
    from camelbell_core.records import Seed
    from camelbell_core.roles import (
        AnswerTeacher,
        BaseModel,
        ChatFrontend,
        Engine,
        Filter,
        Memory,
        QuestionGenerator,
        Trainer,
    )

hookspec = pluggy.HookspecMarker("camelbell")
hookimpl = pluggy.HookimplMarker("camelbell")


@hookspec
def register_question_generators() -> list[type[QuestionGenerator]]:  # type: ignore[empty-body]
    """Offer question generators; the ``questions`` stage runs those that the YAML names."""


@hookspec
def register_answer_teachers() -> list[type[AnswerTeacher]]:  # type: ignore[empty-body]
    """Offer answer teachers; the ``answers`` stage runs the one that the YAML names."""


@hookspec
def register_filters() -> list[type[Filter]]:  # type: ignore[empty-body]
    """Offer filters; they judge teacher answers, and as the guard the replies of a chat."""


@hookspec
def register_trainers() -> list[type[Trainer]]:  # type: ignore[empty-body]
    """Offer trainers; the ``train`` stage runs the one that the YAML names."""


@hookspec
def register_chat_frontends() -> list[type[ChatFrontend]]:  # type: ignore[empty-body]
    """Offer chat frontends; ``chat`` runs the one that the YAML names."""


@hookspec
def register_base_models() -> list[type[BaseModel]]:  # type: ignore[empty-body]
    """Offer loaders of base models; the first that accepts a name loads it."""


@hookspec
def register_engines() -> list[type[Engine]]:  # type: ignore[empty-body]
    """Offer engines: they run base models that come as GGUF files, in the place of transformers."""


@hookspec
def register_memories() -> list[type[Memory]]:  # type: ignore[empty-body]
    """Offer memories: they find the facts that a question is about."""


@hookspec
def register_commands(cli: Any) -> None:
    """Add commands to the command line, a ``click.Group``, before it is parsed."""


@hookspec
def load_seeds(character: Character) -> list[Seed]:  # type: ignore[empty-body]
    """Return more question templates for a character; all answers are joined."""


@hookspec(firstresult=True)
def build_persona(character: Character, language: str) -> str | None:
    """Return the persona text for a language, or None to leave it to the YAML."""
