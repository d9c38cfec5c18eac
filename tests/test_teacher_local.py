import pytest

from camelbell_core.prompts import build_prompt
from camelbell_core.records import Pair, Question
from camelbell_plugins.teacher_local import LocalTeacher

QUESTIONS = [
    Question("灯塔有多少级台阶？", "zh", "fact", "canon", "steps", facts=("steps",)),
    Question("What is your pet called?", "en", "open", "slots", "ask"),
]


def test_the_model_answers_in_the_order_of_the_questions_with_the_facts_that_it_was_shown(
    open_lumen, tools_of, scripted
):
    run, model = open_lumen(), scripted([" 九十", "九级。\n"], ["Pebble", "."])
    pairs = list(LocalTeacher(max_tokens=7, temperature=0.5).answer(QUESTIONS, tools_of(run, model)))
    facts = [[recall.fact for recall in run.memory.recall(question.text, 3)] for question in QUESTIONS]
    ids = [tuple(fact.id for fact in known) for known in facts]
    assert pairs == [
        Pair("灯塔有多少级台阶？", "九十九级。", "zh", "fact", ids[0], "local", "scripted", "canon", "steps"),
        Pair("What is your pet called?", "Pebble.", "en", "open", ids[1], "local", "scripted", "slots", "ask"),
    ]
    assert ids[0][0] == "steps" and ids[1][0] == "pet"
    persona = {language: run.character.config.persona[language] for language in ("zh", "en")}
    assert model.prompts == [
        build_prompt(persona[question.language], question.language, question.text, known)
        for question, known in zip(QUESTIONS, facts, strict=True)
    ]
    assert model.calls == [(7, 0.5), (7, 0.5)]


def test_a_bundle_that_wants_no_facts_gets_none(open_lumen, tools_of, scripted):
    model = scripted(["不知道。"])
    (pair,) = LocalTeacher().answer(QUESTIONS[:1], tools_of(open_lumen(facts=0), model))
    assert (pair.facts, model.prompts[0].facts) == ((), ())


@pytest.mark.parametrize(("questions", "loads"), [([], 0), (QUESTIONS, 1)])
def test_the_model_is_opened_once_and_only_if_there_is_something_to_answer(
    open_lumen, tools_of, scripted, questions, loads
):
    from dataclasses import replace

    opened = []

    def load():
        opened.append(scripted(["a"], ["b"]))
        return opened[-1]

    tools = replace(tools_of(open_lumen()), load_model=load)
    assert [pair.answer for pair in LocalTeacher().answer(questions, tools)] == ["a", "b"][: len(questions)]
    assert len(opened) == loads
