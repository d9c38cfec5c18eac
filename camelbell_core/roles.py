"""The parts that a plugin can offer, as small base classes.

A part is a dataclass: its fields are the options that the YAML may set, checked by type
before any work. ``name`` is how the YAML chooses it.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from camelbell_core.errors import CamelBellError

if TYPE_CHECKING:
    from camelbell_core.character import Character
    from camelbell_core.opening import Opener
    from camelbell_core.prompts import Layout, Prompt
    from camelbell_core.records import Message, Pair, Point, Question, Recall, Verdict
    from camelbell_core.service.endpoint import Estimate
    from camelbell_core.session import Session


class Part(ABC):
    """Something that the YAML chooses by name and sets options of."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    name: ClassVar[str]

    @classmethod
    def summary(cls) -> str:
        """Return the first line of the docstring, as listings show it."""
        return (cls.__doc__ or "").strip().split("\n", 1)[0]


@dataclass(kw_only=True)
class QuestionGenerator(Part):
    """Makes questions for a character; ``share`` weighs how many of a run's questions are its own.

    ``measured`` tells that the diversity of the questions is to be shown before and after.
    """

    measured: ClassVar[bool] = False
    share: float = 1.0

    def prepare(self, tools: QuestionTools) -> None:
        """Get to know the run before questions are made; a generator that needs nothing of it ignores this."""

    @abstractmethod
    def generate(self, character: Character, count: int, rng: Random) -> Iterator[Question]:
        """Yield up to ``count`` different questions, the same for the same ``rng`` state."""


@dataclass(frozen=True, kw_only=True)
class QuestionTools:
    """What a question generator may use of a run: the questions and the pairs so far, a folder, and the progress bar.

    ``room`` tells how many questions are still wanted; ``folder`` is where it may keep what must outlast the run; ``note``
    shows a few words beside the progress bar.
    """

    accepted: Callable[[], Iterable[Question]] = tuple
    pairs: Callable[[], Sequence[Pair]] = tuple
    room: Callable[[], int] = lambda: 1000
    folder: Path | None = None
    note: Callable[[str], None] = lambda words: None


@dataclass(kw_only=True)
class AnswerTeacher(Part):
    """Answers questions in the character's voice; ``free`` says that it asks no service and loads no model."""

    free: ClassVar[bool] = False

    @abstractmethod
    def answer(self, questions: Iterable[Question], tools: TeacherTools) -> Iterator[Pair]:
        """Yield one pair for each question, in any order, each as soon as it is there."""

    def estimate(self, questions: Sequence[Question], tools: TeacherTools) -> Estimate | None:
        """Return what answering the questions would take at most; None where nothing is paid for."""
        return None


@dataclass(frozen=True, kw_only=True)
class TeacherTools:
    """What a teacher works with: the character, its memory, and the random numbers.

    ``folder`` is where it may keep what must outlast the run; ``note`` shows a few words beside the progress bar.
    """

    character: Character
    memory: Memory
    rng: Random
    load_model: Callable[[], LanguageModel]
    persona: Callable[[str], str]
    folder: Path | None = None
    note: Callable[[str], None] = lambda words: None


@dataclass(kw_only=True)
class Filter(Part):
    """Judges a pair; used on teacher answers and, as the guard, on replies of a chat."""

    def prepare(self, character: Character, memory: Memory | None = None, pairs: Sequence[Pair] = ()) -> None:
        """Get ready to judge ``pairs``; without pairs, to guard a chat that may have a memory."""

    def settle(self, folder: Path) -> None:
        """Be told of the folder where what must outlast the run may be kept."""

    @abstractmethod
    def judge(self, pair: Pair) -> Verdict:
        """Say whether the pair is kept, or why not."""

    def judge_all(self, pairs: Sequence[Pair]) -> Iterator[Verdict]:
        """Yield a verdict on each pair, in their order; a filter that asks a service asks for many at once here."""
        return map(self.judge, pairs)

    def second_opinion(self, rejected: Sequence[tuple[Pair, Verdict]]) -> dict[str, Any] | None:
        """Return what this filter would have said of pairs that the others rejected; None if it is not asked for."""
        return None


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """All that a trainer needs: the data as prompts with answers, the base, where to save."""

    character: str
    examples: Sequence[tuple[Prompt, str]]
    base: TrainableBase
    layout: Layout
    output: Path
    seed: str
    describe: dict[str, Any] = field(default_factory=dict)
    progress: Callable[[int, int, str], None] = lambda done, total, note: None


@dataclass(kw_only=True)
class Trainer(Part):
    """Tunes a base model on pairs and saves an adapter."""

    @abstractmethod
    def train(self, job: TrainingJob) -> dict[str, Any]:
        """Train, going on from a checkpoint where there is one, and return the report."""


@dataclass(kw_only=True)
class ChatFrontend(Part):
    """Lets a person talk to a session."""

    opener: ClassVar[Opener | None] = None

    def use(self, opener: Opener) -> None:
        """Take what opens other characters and bases; called before ``run`` where that can be done."""
        vars(self)["opener"] = opener  # not a field: the YAML cannot set it

    @abstractmethod
    def run(self, session: Session) -> None:
        """Talk until the person leaves."""


@dataclass(frozen=True, kw_only=True)
class TrainableBase:
    """A base model opened for training: a torch model, its tokenizer, and what it is."""

    name: str
    model: Any
    tokenizer: Any
    fingerprint: str
    license: str = ""


@dataclass(frozen=True, kw_only=True)
class GgufBase:
    """A base model as one GGUF file, for engines that run such files.

    ``tokenizer`` opens the tokenizer for prompts.py, ``metadata`` reads what stands in the file's header, and
    ``write_half`` writes the same base with weights in float16, for measuring what quantisation costs.
    """

    name: str
    file: Path
    tokenizer: Callable[[], Any]
    metadata: Callable[[], dict[str, Any]]
    fingerprint: str
    license: str = ""
    write_half: Callable[[Path], None] | None = None


class LanguageModel(ABC):
    """A base model, perhaps with an adapter, that continues a prompt."""

    name: str
    adapter: str = ""
    layout: Layout
    parallel: int = 1  # how many replies it can make at a time

    @abstractmethod
    def stream(
        self, prompt: Prompt, max_tokens: int, temperature: float = 0.0, stop: Callable[[], bool] | None = None
    ) -> Iterator[str]:
        """Yield the reply in pieces of whole characters; greedy at temperature 0."""

    def count(self, text: str) -> int:
        """Return how many tokens a text is."""
        return len(self.layout.tokenizer(text, add_special_tokens=False)["input_ids"])

    def with_sampling(self, top_p: float | None = None, seed: int | None = None) -> Self:
        """Return this model with a nucleus and a seed of its own, all else shared; one that has neither returns itself."""
        if not hasattr(self, "top_p"):
            return self
        twin: Any = copy.copy(self)
        twin.top_p = twin.top_p if top_p is None else top_p
        twin.seed = seed
        made: Self = twin
        return made


@dataclass(kw_only=True)
class BaseModel(Part):
    """Loads base models by name or path; what is not ``trainable`` takes no adapter.

    ``quantize`` 8bit or 4bit keeps the weights in bitsandbytes' formats.
    """

    trainable: ClassVar[bool] = True
    quantize: Literal["", "8bit", "4bit"] = ""

    @abstractmethod
    def accepts(self, base: str) -> bool:
        """Tell whether this loader knows the base of that name."""

    def slug(self, base: str) -> str:
        """Return the name of the folder in which adapters for a base lie."""
        from camelbell_core.journal import base_slug

        return base_slug(base)

    def profile(self, base: str) -> str:
        """Return the name of the preset that fits a base, "" where any does."""
        return ""

    def bases(self) -> dict[str, str]:
        """Return the names that it knows by heart, each with a line about it, for completion."""
        return {}

    @abstractmethod
    def load(self, base: str, adapter: Path | None = None) -> LanguageModel:
        """Open the base, with an adapter where one is given, for talking."""

    def gguf(self, base: str) -> GgufBase | None:
        """Return the base as a GGUF file, or None where it does not come as one."""
        return None

    def load_several(self, base: str, adapters: Sequence[Path | None]) -> list[LanguageModel]:
        """Open the base for several characters, one adapter or none each; a loader that can keeps it in memory once."""
        return [self.load(base, adapter) for adapter in adapters]

    def files(self, base: str) -> tuple[Path, str]:
        """Return a transformers folder of the base and its fingerprint, for an engine that opens it by itself."""
        raise CamelBellError(f"the base {base!r} has no folder of transformers", "choose another: --base embedded")

    @abstractmethod
    def load_trainable(self, base: str) -> TrainableBase:
        """Open the base for training."""


@dataclass(kw_only=True)
class Engine(Part):
    """Runs bases that come as a GGUF file, for talking; training stays with transformers."""

    @abstractmethod
    def suits(self) -> bool:
        """Tell whether it is the better choice on this machine, where nobody names an engine."""

    @abstractmethod
    def load_several(self, base: GgufBase, adapters: Sequence[Path | None]) -> list[LanguageModel]:
        """Open the base once, for as many models as there are adapters; None is the bare base."""


@dataclass(kw_only=True)
class Memory(Part):
    """Finds the facts that a question is about."""

    @abstractmethod
    def prepare(self, character: Character) -> None:
        """Read the canon of the character."""

    @abstractmethod
    def recall(
        self, question: str, count: int, at: Point | None = None, history: Sequence[Message] = (), unseen: bool = False
    ) -> list[Recall]:
        """Return up to ``count`` facts that hold at a point of the story, the likeliest first.

        ``unseen`` asks for what would come to mind had this very question never been seen: for training.
        """
