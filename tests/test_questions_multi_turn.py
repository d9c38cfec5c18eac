import pytest

from camelbell_core.journal import read_records, write_rows
from camelbell_core.pipeline import make_answers, make_questions
from camelbell_core.records import Pair, Question, to_row

PAIRS = {
    "zh": Pair("阿白是谁？", "阿白是我的海鸥。", "zh"),
    "en": Pair("Who is Pebble?", "Pebble is my gull.", "en", at="", history=("Hi!", "Hello.")),
}
FOLLOW_UPS = {
    "zh": ["那它现在住在哪里呢？", "阿白究竟是谁？", "你是怎么遇见它的？"],
    "en": ["And where does she sleep at night?", "So who is Pebble?", "How did you two meet?"],
}


@pytest.mark.parametrize("language", ["zh", "en"])
def test_follow_ups_stand_after_what_was_said(open_lumen, chat_service, language):
    lines = "\n".join(f"{n}. {text}" for n, text in enumerate(FOLLOW_UPS[language], 1))
    chat_service.script = lambda prompt, times: (200, {}, chat_service.told(lines)) if "1" in prompt else None
    service = {"base_url": chat_service.url}
    run = open_lumen(questions=[{"multi_turn": service}], answers={"openai": service})
    pair = PAIRS[language]
    write_rows(run.workspace.kept, [to_row(pair)])
    make_questions(run, 2)
    made = read_records(run.workspace.questions, Question)
    assert [question.text for question in made] == [FOLLOW_UPS[language][0], FOLLOW_UPS[language][2]]
    assert {question.history for question in made} == {(*pair.history, pair.question, pair.answer)}
    assert {(q.kind, q.generator, q.seed) for q in made} == {("follow_up", "multi_turn", pair.id)}
    (asked,) = (body["messages"][0]["content"] for body in chat_service.requests)
    assert all(text in asked for text in (*pair.history, pair.question, pair.answer))
    make_answers(run, lambda: pytest.fail("no model is needed"))
    answers = [pair for pair in read_records(run.workspace.pairs, Pair) if pair.history]
    assert {answer.answer for answer in answers} == {f"<{question.text}>" for question in made}


def test_conversations_grow_no_longer_than_asked_for(open_lumen, chat_service):
    said = ("一", "二", "三", "四")
    run = open_lumen(questions=[{"multi_turn": {"base_url": chat_service.url, "turns": 3}}])
    write_rows(run.workspace.kept, [to_row(Pair("五？", "六", "zh", history=said))])
    assert make_questions(run, 5)["questions"] == 0
    assert chat_service.requests == []


def test_without_pairs_there_is_nothing_to_go_on_with(open_lumen, chat_service):
    run = open_lumen(questions=[{"multi_turn": {"base_url": chat_service.url}}])
    assert make_questions(run, 5)["short"].startswith("the generators have no more different questions (multi_turn 0)")
