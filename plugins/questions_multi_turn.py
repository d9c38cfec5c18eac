"""The ``multi_turn`` question generator: what a visitor might ask next, after an answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from camelbell_core import hookimpl
from camelbell_core.growing import Growing, Wish
from camelbell_core.records import Message, Pair, Question
from camelbell_core.roles import QuestionGenerator, QuestionTools
from camelbell_core.service.listed import why_no_question

if TYPE_CHECKING:
    from camelbell_core.character import Character

_PROMPT = {
    "zh": (
        "有人在和{who}聊天：\n{talk}\n\n写{count}个对方接着可能追问的问题，可以用“他”“那时候”这样的词指前面说的，各不相同，不要回答。"
        "只写编号列表，一行一个，从1到{count}。"
    ),
    "en": (
        "Somebody is chatting with {who}:\n{talk}\n\nWrite {count} different questions that they might ask next. They may "
        "point back with words such as he, it or then. Do not answer. Write only a numbered list, one a line, from 1 to {count}."
    ),
}
_ROLES = {"zh": ("对方", "{who}", "："), "en": ("Visitor", "{who}", ": ")}


@dataclass(kw_only=True)
class MultiTurn(Growing):
    """Has a service write follow-up questions to answered ones, up to ``turns`` turns deep; the answers stand in their history.

    It needs pairs, kept ones if there are any: run the answers once before. A follow-up that is alike above ``rouge``
    (ROUGE-L F) with the question before it or another follow-up of it is left out.
    """

    name: ClassVar[str] = "multi_turn"
    batch: int = 3
    turns: int = 3
    rouge: float = 0.7

    def prepare(self, tools: QuestionTools) -> None:
        """Note the run."""
        super().prepare(tools)
        self._follow_ups: dict[tuple[str, ...], Any] = {}
        self._queue: list[Pair] | None = None

    def wishes(self, character: Character, count: int, rng: Any) -> Iterator[Wish]:
        """Yield the next conversations to be gone on with."""
        if getattr(self, "_queue", None) is None:
            pairs = getattr(self, "_tools", QuestionTools()).pairs()
            pairs = [pair for pair in pairs if pair.answer and len(pair.history) < 2 * (self.turns - 1)]
            self._queue = rng.sample(pairs, len(pairs))
        assert self._queue is not None
        part, self._queue = self._queue[:count], self._queue[count:]
        for pair in part:
            said = (*pair.history, pair.question, pair.answer)
            prompt = _PROMPT.get(pair.language, _PROMPT["en"])
            who = character.title(pair.language)
            text = prompt.format(who=who, count=self.batch, talk=_talk(said, pair.language, who))
            model = Question("?", pair.language, "follow_up", self.name, pair.id, {}, (), "", pair.at, said)
            yield Wish((Message("user", text),), self.batch, model)

    def takes(self, character: Character, wish: Wish, text: str) -> str:
        """Return why a follow-up is not one."""
        from camelbell_core.alike import AlikePool

        why = why_no_question(text, wish.model.language, character.languages)
        if why:
            return why
        said = wish.model.history
        if said not in self._follow_ups:
            self._follow_ups[said] = AlikePool(self.rouge)
            for before in said[::2]:
                self._follow_ups[said].keep(before)
        return "alike" if self._follow_ups[said].add(text) >= 0 else ""


def _talk(said: tuple[str, ...], language: str, who: str) -> str:
    visitor, me, colon = _ROLES.get(language, _ROLES["en"])
    names = (visitor, me.format(who=who))
    return "\n".join(f"{names[place % 2]}{colon}{text}" for place, text in enumerate(said))


@hookimpl
def register_question_generators() -> list[type[QuestionGenerator]]:
    """Offer the multi_turn generator."""
    return [MultiTurn]
