"""The ``self_instruct`` question generator: a pool that grows from seeds, the way of Alpaca, steered to what is thin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from camelbell_core import hookimpl
from camelbell_core.growing import Growing, Wish
from camelbell_core.records import Message, Question
from camelbell_core.roles import QuestionGenerator, QuestionTools
from camelbell_core.service.listed import why_no_question

if TYPE_CHECKING:
    from camelbell_core.character import Character
    from camelbell_core.records import Seed

ASKERS = {
    "plain": {"zh": "随便聊聊的人", "en": "somebody who just wants to chat"},
    "child": {"zh": "一个七八岁的孩子", "en": "a child of seven or eight"},
    "fan": {"zh": "一个什么细节都知道的书迷", "en": "a fan who knows every detail"},
    "doubter": {"zh": "一个什么都怀疑的人", "en": "a doubter who believes nothing"},
    "muddler": {"zh": "一个总是把人和事弄混的人", "en": "someone who mixes up people and events"},
}
_PROMPT = {
    "zh": (
        "有人在和{who}聊天，你替他们想问题。{persona}\n\n已经有人问过：\n{examples}\n\n请再写{count}个问{who}的新问题。提问的人是{asker}。"
        "{about}{kind}每个问题都要不一样，不要重复上面的，不要写回答。只写编号列表，一行一个问题，从1到{count}。"
    ),
    "en": (
        "People are chatting with {who}, and you think up what they ask. {persona}\n\nAsked before:\n{examples}\n\nWrite {count} new "
        "questions to {who}. The one who asks is {asker}. {about}{kind}Each must be different, none may repeat those above, and write "
        "no answers. Write only a numbered list, one question a line, from 1 to {count}."
    ),
}
_ABOUT = {"zh": "问题里要谈到这些，各至少一个：{names}。", "en": "Talk about each of these at least once: {names}. "}
_KIND = {"zh": "问题的类型像这样：“{example}”。", "en": "They should be of a kind with this one: “{example}”. "}


@dataclass(kw_only=True)
class SelfInstruct(Growing):
    """Has a service write new questions after sampled seeds and accepted ones, steered to what few ask about.

    Kinds, askers, slots and entities that have the fewest questions are asked for by name. A question whose ROUGE-L F with a seed or
    an accepted one is above ``rouge`` is left out, as in self-instruct (Wang et al. 2023) and Alpaca.
    """

    name: ClassVar[str] = "self_instruct"
    rouge: float = 0.7
    seeds: int = 3
    accepted: int = 3
    entities: int = 3

    def prepare(self, tools: QuestionTools) -> None:
        """Note the run; the pool is filled when the first question is asked for."""
        super().prepare(tools)
        self._pool: Any = None

    def wishes(self, character: Character, count: int, rng: Any) -> Iterator[Wish]:
        """Yield the requests of a round: each for another kind, asker and set of entities, the thinnest first."""
        self._fill(character)
        for number in range(count):
            language = min(character.languages, key=lambda lang: (self._counts["language", lang], rng.random()))
            language = rng.choice(character.languages) if number % 2 else language
            yield self._wish(character, language, rng)

    def takes(self, character: Character, wish: Wish, text: str) -> str:
        """Return why a question is not new or not right; a new one joins the pool and what is covered."""
        self._fill(character)
        why = why_no_question(text, wish.model.language, character.languages)
        if why:
            return why
        if self._pool.add(text) >= 0:
            return "alike"
        self._count(character, text, wish.model)
        self._texts[wish.model.language].append(text)
        return ""

    def _fill(self, character: Character) -> None:
        """Take up seeds and accepted questions, and count what they cover."""
        from camelbell_core.alike import AlikePool

        if getattr(self, "_pool", None) is not None:
            return
        self._pool = AlikePool(self.rouge)
        self._counts: Counter[tuple[str, str]] = Counter()
        self._texts: dict[str, list[str]] = {language: [] for language in character.languages}
        tools = getattr(self, "_tools", QuestionTools())
        for question in list(tools.accepted()):
            self._pool.keep(question.text)
            self._count(character, question.text, question)
            self._texts.setdefault(question.language, []).append(question.text)

    def _count(self, character: Character, text: str, model: Question) -> None:
        covered = [("language", model.language), ("kind", model.kind), ("asker", model.slots.get("asker", "plain"))]
        covered += [("slot", slot) for slot in model.slots if slot != "asker"]
        covered += [("entity", entity) for entity in character.canon.names.ids(text)]
        self._counts.update(covered)

    def _thin(self, what: str, among: Sequence[str], count: int, rng: Any) -> list[str]:
        """Return those that the fewest questions are about, ties by chance; what is asked for counts a little at once."""
        chosen = sorted(among, key=lambda name: (self._counts[what, name], rng.random()))[:count]
        self._counts.update((what, name) for name in chosen)
        return chosen

    def _wish(self, character: Character, language: str, rng: Any) -> Wish:
        seeds = [seed for seed in character.seeds if seed.texts.get(language)]
        kinds = list(dict.fromkeys(seed.kind for seed in seeds))
        kind = next(iter(self._thin("kind", kinds, 1, rng)), "open")
        asker = self._thin("asker", list(ASKERS), 1, rng)[0]
        of_kind = [seed for seed in seeds if seed.kind == kind]
        example = self._filled(character, rng.choice(of_kind), language, rng) if of_kind else ("", {})
        shown = [self._filled(character, seed, language, rng)[0] for seed in _some(seeds, self.seeds, rng)]
        shown += _some(self._texts[language], self.accepted, rng)
        rng.shuffle(shown)
        model = Question("?", language, kind, self.name, "", {**example[1], "asker": asker})
        words = {
            "who": character.title(language),
            "persona": " ".join(character.fill(character.config.persona.get(language, ""), language).split()),
            # Numbered, as the answer is to be: small models go on in the form that they see.
            "examples": "\n".join(f"{number}. {text}" for number, text in enumerate(dict.fromkeys(shown), 1)) or "-",
            "count": self.batch,
            "asker": ASKERS[asker].get(language, ASKERS[asker]["en"]),
            "about": self._about(character, language, rng),
            "kind": _KIND.get(language, _KIND["en"]).format(example=example[0]) if example[0] else "",
        }
        prompt = _PROMPT.get(language, _PROMPT["en"]).format(**words)
        return Wish((Message("user", prompt),), self.batch, model)

    def _about(self, character: Character, language: str, rng: Any) -> str:
        """Return the order to talk about the entities and slot values that are thin."""
        entities = character.canon.entities
        known = [entity for entity in entities if entities[entity].names.get(language)]
        names = [entities[entity].names[language] for entity in self._thin("entity", known, self.entities, rng)]
        slots = [slot for slot, values in character.slots.items() if any(language in v.texts for v in values)]
        for slot in self._thin("slot", slots, 1, rng):
            names.append(
                rng.choice([value.texts[language] for value in character.slots[slot] if language in value.texts])
            )
        joined = ("、" if language == "zh" else ", ").join(dict.fromkeys(names))
        return _ABOUT.get(language, _ABOUT["en"]).format(names=joined) if names else ""

    def _filled(self, character: Character, seed: Seed, language: str, rng: Any) -> tuple[str, dict[str, str]]:
        from camelbell_core.slots import expand

        filled = next(expand(rng.choice(seed.texts[language]), language, character.slots, rng), None)
        if filled is None:
            return "", {}
        return filled.text, {slot: value.texts[language] for slot, value in filled.values.items()}


def _some(items: Sequence[Any], count: int, rng: Any) -> list[Any]:
    return rng.sample(items, min(count, len(items)))  # type: ignore[no-any-return]


@hookimpl
def register_question_generators() -> list[type[QuestionGenerator]]:
    """Offer the self_instruct generator."""
    return [SelfInstruct]
