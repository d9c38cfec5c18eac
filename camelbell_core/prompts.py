"""The one place where prompts are built: persona + facts + history -> token ids.

Teaching, training, evaluation and chat all come here, so that the prefix a model is trained
on is, id for id, the prefix that it is asked with.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, ClassVar

from camelbell_core.errors import CamelBellError
from camelbell_core.records import Fact, Message

if TYPE_CHECKING:
    from camelbell_core.character import Character

# What stands around the parts of a prompt, by language; other languages take the English words.
_WORDS = {
    "zh": {"facts": "我记得的事：", "ask": "问：", "answer": "答：", "space": ""},
    "en": {"facts": "What I remember:", "ask": "Q:", "answer": "A:", "space": " "},
}


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked, before it becomes tokens."""

    language: str
    persona: str
    question: str
    facts: tuple[str, ...] = ()
    history: tuple[Message, ...] = ()

    @classmethod
    def of_row(cls, row: dict[str, Any]) -> Prompt:
        """Return the prompt that ``dataclasses.asdict`` made a JSON object of."""
        history = tuple(Message(**message) for message in row["history"])
        return cls(**{**row, "facts": tuple(row["facts"]), "history": history})


def persona_of(character: Character, language: str, built: str | None = None) -> str:
    """Return the persona text: the one a plugin built, else the YAML's, its ``values`` filled in."""
    texts = character.config.persona
    if not built and not texts.get(language):
        language = character.languages[0]
    text = built or texts.get(language) or character.title(language)
    return " ".join(character.fill(text, language).split())


def build_prompt(
    persona: str, language: str, question: str, facts: Sequence[Fact] = (), history: Sequence[Message] = ()
) -> Prompt:
    """Return the prompt for a question: facts in the character's own telling, likeliest last.

    The likeliest fact stands next to the question, where a small model reads best.
    """
    told = tuple(" ".join(remembered(fact, language).split()) for fact in reversed(facts))
    return Prompt(language, persona, " ".join(question.split()), told, merge_turns(history))


def remembered(fact: Fact, language: str) -> str:
    """Return a fact as it stands in a prompt: what is true, and how the character tells it."""
    text, voice = fact.text.get(language, ""), fact.voice.get(language, "")
    return text if not voice or voice == text else f"{text} | {voice}" if text else voice


def merge_turns(history: Sequence[Message]) -> tuple[Message, ...]:
    """Return the history with neighbours of one role joined, as many chat services demand."""
    merged: list[Message] = []
    for message in history:
        if merged and merged[-1].role == message.role:
            merged[-1] = Message(message.role, merged[-1].content + "\n" + message.content)
        else:
            merged.append(message)
    return tuple(merged)


class Layout(ABC):
    """How a prompt is laid out as text, and its text as token ids."""

    name: ClassVar[str]

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    @abstractmethod
    def prefix(self, prompt: Prompt) -> list[int]:
        """Return the ids that the answer follows, <bos> included where the model has one."""

    @abstractmethod
    def answer(self, text: str, language: str) -> list[int]:
        """Return the ids of an answer and of its end."""

    @property
    @abstractmethod
    def end_ids(self) -> list[int]:
        """The ids at which generation stops."""

    def clean(self, text: str) -> str:
        """Return generated text without what the layout put around it."""
        return text.strip()

    def digest(self) -> str:
        """Return a hash of the ids of a fixed prompt: it changes when the layout or the tokenizer does."""
        ids = []
        for language, text in (("zh", "你好"), ("en", "hello")):
            history = (Message("user", text), Message("assistant", text))
            ids += self.prefix(Prompt(language, text, text, (text, text), history)) + self.answer(text, language)
        return sha256(f"{self.name}:{ids}".encode()).hexdigest()

    def fit(self, prompt: Prompt, window: int) -> list[int]:
        """Return the prefix cut to the window: the oldest turns go first, then the least likely facts.

        Before a fact goes, a question is cut to half the window; of a question its end is kept. A persona that is
        longer than the window is an error.
        """
        ids = self.prefix(prompt)
        if len(ids) <= window:
            return ids
        bare = replace(prompt, history=())
        ids = self.prefix(bare)
        if len(ids) <= window:
            starts = [n for n, message in enumerate(prompt.history) if n and message.role == "user"]
            shorter = [replace(prompt, history=prompt.history[start:]) for start in starts]
            first = bisect_left(shorter, True, key=lambda prompt: len(self.prefix(prompt)) <= window)
            return self.prefix([*shorter, bare][first])
        bare, ids = self._cut_question(bare, window, window)
        for first in range(len(bare.facts) + 1):
            facts = bare.facts[first:]
            _, ids = self._cut_question(replace(bare, facts=facts), window, window // 2 if facts else 0)
            if len(ids) <= window:
                return ids
        raise CamelBellError(
            f"the persona alone takes {len(ids)} tokens, and there is room for {window}",
            "shorten it, or ask for shorter answers",
        )

    def _cut_question(self, prompt: Prompt, window: int, least: int) -> tuple[Prompt, list[int]]:
        """Return the prompt and its ids, its question cut until they fit or it is down to ``least`` tokens."""
        other = len(self.prefix(replace(prompt, question="")))
        ids = self.prefix(prompt)
        while len(ids) > window and len(ids) - other > least and prompt.question:
            length = len(prompt.question)
            over = length * (len(ids) - max(window, other + least)) // (len(ids) - other)
            prompt = replace(prompt, question=prompt.question[min(length, over + 1) :])
            ids = self.prefix(prompt)
        return prompt, ids


class PlainLayout(Layout):
    """For base models without a chat template: labelled lines of text."""

    name = "plain"

    def prefix(self, prompt: Prompt) -> list[int]:
        """Return <bos> and the text's ids."""
        words = _WORDS.get(prompt.language, _WORDS["en"])
        lines = [prompt.persona]
        if prompt.facts:
            lines += ["", words["facts"], *(f"- {fact}" for fact in prompt.facts)]
        lines.append("")
        for message in prompt.history:
            label = words["ask"] if message.role == "user" else words["answer"]
            lines.append(f"{label}{words['space']}{' '.join(message.content.split())}")
        lines += [f"{words['ask']}{words['space']}{prompt.question}", words["answer"]]
        bos = self.tokenizer.bos_token_id
        return [*([bos] if bos is not None else []), *self._ids("\n".join(lines))]

    def answer(self, text: str, language: str) -> list[int]:
        """Return the answer's ids and <eos>."""
        space = _WORDS.get(language, _WORDS["en"])["space"]
        return [*self._ids(space + " ".join(text.split())), self.tokenizer.eos_token_id]

    @property
    def end_ids(self) -> list[int]:
        """<eos>, and the line break that ends an answer."""
        line_break = self._ids("\n")
        return [self.tokenizer.eos_token_id, *line_break[-1:]]

    def _ids(self, text: str) -> list[int]:
        # A special token that somebody spells out, such as <eos>, is text like any other.
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])


class TemplateLayout(Layout):
    """For models with a chat template: the template of their tokenizer."""

    name = "template"

    def prefix(self, prompt: Prompt) -> list[int]:
        """Return the ids that the template gives up to the assistant's turn."""
        words = _WORDS.get(prompt.language, _WORDS["en"])
        system = prompt.persona
        if prompt.facts:
            system += f"\n\n{words['facts']}\n" + "\n".join(f"- {fact}" for fact in prompt.facts)
        turns = [{"role": m.role, "content": m.content} for m in prompt.history]
        turns.append({"role": "user", "content": prompt.question})
        try:
            return self._apply([{"role": "system", "content": system}, *turns])
        except Exception as error:
            if type(error).__name__ != "TemplateError":  # jinja2's: the template refuses a system turn
                raise
            turns[0]["content"] = f"{system}\n\n{turns[0]['content']}"
            return self._apply(turns)

    def answer(self, text: str, language: str) -> list[int]:
        """Return the answer's ids and the end of the turn."""
        ids = self.tokenizer(" ".join(text.split()), add_special_tokens=False)["input_ids"]
        return [*ids, self.tokenizer.eos_token_id]

    @property
    def end_ids(self) -> list[int]:
        """The end of the turn."""
        return [self.tokenizer.eos_token_id]

    def _apply(self, messages: list[dict[str, str]]) -> list[int]:
        return list(
            self.tokenizer.apply_chat_template(
                messages,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=False,
                enable_thinking=False,  # Qwen3's and GLM's templates: answer at once
            )
        )


def layout_for(tokenizer: Any) -> Layout:
    """Return the layout that a tokenizer asks for: its chat template, else plain text."""
    return TemplateLayout(tokenizer) if getattr(tokenizer, "chat_template", None) else PlainLayout(tokenizer)


def as_messages(prompt: Prompt) -> list[Message]:
    """Return the prompt as messages for a chat service."""
    words = _WORDS.get(prompt.language, _WORDS["en"])
    system = prompt.persona
    if prompt.facts:
        system += f"\n\n{words['facts']}\n" + "\n".join(f"- {fact}" for fact in prompt.facts)
    return [Message("system", system), *prompt.history, Message("user", prompt.question)]
