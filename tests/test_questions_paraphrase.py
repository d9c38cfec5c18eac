import json
import re

import pytest

from camelbell_core.journal import read_records
from camelbell_core.pipeline import make_questions
from camelbell_core.records import Question

SOURCES = [
    Question("阿白是什么时候来到灯塔的？", "zh", "fact", "canon", "pet", facts=("pet",)),
    Question("When did Pebble come to the lighthouse?", "en", "fact", "canon", "pet", facts=("pet",)),
]
REPLIES = {
    "zh": [
        "灯塔里的阿白，最初是哪天住进来的？",
        "小黑是哪天来的呢？",
        "阿白是什么时候来到灯塔的?",
        "跟我讲讲阿白来灯塔是在99年吗？",
    ],
    "en": [
        "On which day was it that Pebble first moved in with you?",
        "On which day did Rover arrive at your place?",
        "WHEN did Pebble come to the lighthouse?",
        "Was it in 1999 that Pebble moved in?",
    ],
}


@pytest.mark.parametrize("language", ["zh", "en"])
def test_other_wordings_keep_names_numbers_and_facts(open_lumen, chat_service, language):
    def write(prompt, times):
        lines = REPLIES["zh" if "编号列表" in prompt else "en"]
        return 200, {}, chat_service.told("\n".join(f"{n}. {line}" for n, line in enumerate(lines, 1)))

    chat_service.script = write
    run = open_lumen(questions=[{"paraphrase": {"base_url": chat_service.url}}])
    source = next(question for question in SOURCES if question.language == language)
    run.workspace.root.mkdir(parents=True)
    row = {"text": source.text, "language": language, "kind": "fact", "facts": ["pet"]}
    run.workspace.questions.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    report = make_questions(run, 10)
    first, *made = read_records(run.workspace.questions, Question)
    assert [question.text for question in made] == REPLIES[language][:1]
    assert (made[0].facts, made[0].kind, made[0].generator, made[0].seed) == (("pet",), "fact", "paraphrase", first.id)
    assert report["short"]
    assert len(chat_service.requests) == 1
    assert source.text in chat_service.requests[0]["messages"][0]["content"]


def test_each_question_is_asked_about_once_and_wordings_not_again(open_lumen, chat_service):
    def write(prompt, times):
        number = len(chat_service.requests)
        who = re.search("阿白|Pebble", prompt)[0]
        text = (
            f"{'春夏秋冬'[number % 4]}天里{who}过得好不好呀？"
            if who == "阿白"
            else f"So how was {who} in season {'abcd'[number % 4]}?"
        )
        return 200, {}, chat_service.told("\n".join(f"{n}. {text}" for n in range(1, 5)))

    chat_service.script = write
    run = open_lumen(questions=[{"paraphrase": {"base_url": chat_service.url}}])
    run.workspace.root.mkdir(parents=True)
    lines = [{"text": q.text, "language": q.language} for q in SOURCES]
    lines += [{"text": "它呢？", "language": "zh", "history": ["阿白呢？", "它很好。"]}]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    run.workspace.questions.write_text(text, encoding="utf-8")
    make_questions(run, 50)
    made = [q for q in read_records(run.workspace.questions, Question) if q.generator == "paraphrase"]
    assert len(made) == 2 and len(chat_service.requests) == 2
    make_questions(run, 50)
    assert len(chat_service.requests) == 2
