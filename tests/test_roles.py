"""The parts that a plugin can offer: abstract, made of checked options, chosen by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import pytest
from pydantic import TypeAdapter, ValidationError

from camelbell_core import roles
from camelbell_core.records import Pair, Question, Verdict

METHODS = {  # what a part of each role must be able to do
    "QuestionGenerator": {"generate"},
    "AnswerTeacher": {"answer"},
    "Filter": {"judge"},
    "Trainer": {"train"},
    "ChatFrontend": {"run"},
    "BaseModel": {"accepts", "load", "load_trainable"},
    "Memory": {"prepare", "recall"},
    "LanguageModel": {"stream"},
}
PARTS = sorted(set(METHODS) - {"LanguageModel"})


@dataclass(kw_only=True)
class Marks(roles.Filter):
    """Counts marks. 数标点。

    More about it.
    """

    name: ClassVar[str] = "marks"
    marks: tuple[str, ...] = ("!",)
    most: int = 0

    def judge(self, pair: Pair) -> Verdict:
        count = sum(pair.answer.count(mark) for mark in self.marks)
        return Verdict(self.name, f"{count} marks" if count > self.most else "")


@pytest.mark.parametrize("role", METHODS)
def test_a_role_demands_its_methods_and_no_more(role: str) -> None:
    kind = getattr(roles, role)
    assert kind.__abstractmethods__ == METHODS[role]
    with pytest.raises(TypeError, match="abstract"):
        kind()


@pytest.mark.parametrize("role", PARTS)
def test_the_options_of_a_role_are_keywords_with_defaults(role: str) -> None:
    kind = getattr(roles, role)
    assert issubclass(kind, roles.Part)
    fields = dataclasses.fields(kind)
    own = {"QuestionGenerator": ["share"], "BaseModel": ["quantize"]}
    assert [f.name for f in fields] == own.get(role, [])
    assert all(f.kw_only for f in fields)


def test_the_first_line_of_the_docstring_is_the_summary() -> None:
    assert Marks.summary() == "Counts marks. 数标点。"

    class Silent(roles.Part):
        pass

    Silent.__doc__ = None
    assert Silent.summary() == ""


@pytest.mark.parametrize(
    ("options", "answer", "reason"),
    [
        ({}, "好！", ""),
        ({"marks": ["!", "！"]}, "好！", "1 marks"),
        ({"marks": ["!", "！"], "most": 1}, "好！", ""),
        ({}, "Fine!", "1 marks"),
    ],
)
def test_a_part_is_made_of_its_options(options: dict[str, Any], answer: str, reason: str) -> None:
    made = TypeAdapter(Marks).validate_python(options)
    made.prepare(None)  # by default there is nothing to get ready
    assert made.judge(Pair("?", answer, "zh")) == Verdict("marks", reason)


@pytest.mark.parametrize("options", [{"mosst": 1}, {"most": "一"}, {"most": None}, {"marks": "!"}, {"name": "other"}])
def test_an_unknown_or_wrong_option_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Marks).validate_python(options)


def test_a_generator_has_a_share_besides_its_own_options() -> None:
    @dataclass(kw_only=True)
    class One(roles.QuestionGenerator):
        """Asks one thing."""

        name: ClassVar[str] = "one"
        text: str = "你好吗？"

        def generate(self, character: Any, count: int, rng: Random) -> Iterator[Question]:
            yield Question(self.text, "zh")

    made = TypeAdapter(One).validate_python({"share": 3, "text": "How are you?"})
    assert (made.share, One().share) == (3.0, 1.0)
    assert list(made.generate(None, 1, Random(0))) == [Question("How are you?", "zh")]


def test_a_training_job_tells_nobody_of_its_progress_unless_asked() -> None:
    job = roles.TrainingJob(
        character="lumen",
        examples=[],
        base=None,
        layout=None,
        output=Path("adapter"),
        seed="0",
        describe={"title": "灯"},
    )
    assert job.progress(1, 2, "loss 0.5") is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        job.seed = "1"
