import json
import socket
import threading
from collections import Counter

import pytest

from camelbell_core.errors import BundleError, CamelBellError
from camelbell_core.journal import Journal, read_records
from camelbell_core.pipeline import make_answers
from camelbell_core.prompts import as_messages, build_prompt
from camelbell_core.records import Pair, Question
from camelbell_plugins.teacher_openai import OpenAITeacher

MANY = [Question(f"灯塔里有{number}只海鸥吗？", "zh") for number in range(20)]
MANY += [Question(f"Is gull number {number} asleep?", "en") for number in range(20)]
SOON = {"Retry-After": "0.01"}


@pytest.fixture
def answered(open_lumen, tools_of, chat_service):
    """Have the service answer questions of the scaffold's bundle."""

    def answer(questions, **options):
        options = {"base_url": chat_service.url, "retries": 0, **options}
        return list(OpenAITeacher(**options).answer(questions, tools_of(open_lumen())))

    return answer


def in_order(pairs):
    places = {question.text: place for place, question in enumerate(MANY)}
    return sorted(((pair.question, pair.answer) for pair in pairs), key=lambda pair: places[pair[0]])


def right(service, questions=MANY):
    return [(question.text, service.answer_to(question.text)) for question in questions]


def failure(answered, questions=MANY[:1], **options):
    with pytest.raises(CamelBellError) as caught:
        answered(questions, **options)
    return caught.value.message, caught.value.hint


def test_the_service_sees_persona_facts_question_and_options(open_lumen, answered, chat_service):
    question = Question("灯塔有多少级台阶？", "zh", "fact", "canon", "steps", facts=("steps",))
    (pair,) = answered([question], model="m-1", temperature=0.25, max_tokens=50)
    run = open_lumen()
    steps, pet = run.character.canon.facts["steps"], run.character.canon.facts["pet"]
    prompt = build_prompt(run.character.config.persona["zh"], "zh", question.text, [steps, pet])
    messages = [{"role": message.role, "content": message.content} for message in as_messages(prompt)]
    assert chat_service.requests == [{"messages": messages, "model": "m-1", "max_tokens": 50, "temperature": 0.25}]
    answer = chat_service.answer_to(question.text)
    assert pair == Pair(question.text, answer, "zh", "fact", ("steps", "pet"), "openai", "m-1", "canon", "steps")


@pytest.mark.parametrize("concurrency", [1, 4, 64])
def test_every_question_gets_its_own_answer(answered, chat_service, concurrency):
    assert in_order(answered(MANY, concurrency=concurrency)) == right(chat_service)
    assert chat_service.asked == Counter(question.text for question in MANY)


def test_as_many_requests_are_under_way_as_the_bundle_says(answered, chat_service):
    together, lock, now, most = threading.Barrier(5), threading.Lock(), [0], [0]

    def script(question, times):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        together.wait(20)  # fails unless five are under way at once
        with lock:
            now[0] -= 1

    chat_service.script = script
    assert in_order(answered(MANY, concurrency=5)) == right(chat_service)
    assert most == [5]


def test_429_with_retry_after_and_500_are_tried_again(answered, chat_service):
    failures = {1: (429, SOON, "{}"), 2: (500, SOON, "oops"), 3: (503, SOON, "<html>busy</html>")}
    stubborn = {question.text for question in MANY[::3]}
    chat_service.script = lambda question, times: failures.get(times) if question in stubborn else None
    assert in_order(answered(MANY, concurrency=8, retries=3)) == right(chat_service)
    assert chat_service.asked == Counter({q.text: 4 if q.text in stubborn else 1 for q in MANY})


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_stops_at_once_and_what_was_done_is_kept(open_lumen, chat_service, monkeypatch, status):
    monkeypatch.setenv("LUMEN_KEY", "sk-secret")
    teacher = {"openai": {"base_url": chat_service.url, "key_env": "LUMEN_KEY", "concurrency": 1}}
    run = open_lumen(answers=teacher)
    with Journal(run.workspace.questions) as journal:
        for question in MANY:
            journal.add(question)
    chat_service.script = lambda question, times: (status, {}, "{}") if question == MANY[3].text else None
    with pytest.raises(CamelBellError) as caught:
        make_answers(run, lambda: pytest.fail("no model is needed"))
    assert caught.value.message == f"{chat_service.url} refuses the key (HTTP {status}) (3 of 40 answered)"
    assert caught.value.hint == "check the key in LUMEN_KEY"
    assert in_order(read_records(run.workspace.pairs, Pair)) == right(chat_service, MANY[:3])
    assert chat_service.asked == Counter(question.text for question in MANY[:4])
    chat_service.script = lambda question, times: None
    assert make_answers(run, lambda: pytest.fail("no model is needed"))["answered"] == 40
    assert in_order(read_records(run.workspace.pairs, Pair)) == right(chat_service)
    assert chat_service.asked == Counter([*(question.text for question in MANY), MANY[3].text])


def test_answers_that_were_under_way_when_one_failed_are_kept(open_lumen, tools_of, chat_service):
    together, given = threading.Barrier(6), []

    def script(question, times):
        if question in {q.text for q in MANY[:6]}:
            together.wait(20)
        if question == MANY[2].text:
            return 401, {}, "{}"
        given.append(question)
        return None

    chat_service.script = script
    teacher = OpenAITeacher(base_url=chat_service.url, concurrency=6)
    more = [Question(f"gull {number}?", "en") for number in range(500)]
    pairs = []
    with pytest.raises(CamelBellError, match="refuses the key"):
        for pair in teacher.answer([*MANY[:6], *more], tools_of(open_lumen())):
            pairs.append(pair)
    assert {pair.question for pair in pairs} == set(given) >= {q.text for q in MANY[:6]} - {MANY[2].text}
    assert len(pairs) == len(given) < 500


@pytest.mark.parametrize(
    ("status", "body", "said", "hint"),
    [
        (404, "{}", "has no model 'gpt-4o-mini' (HTTP 404)", "check model and base_url"),
        (
            400,
            '{"error": {"message": "too\\nlong \\u001b[31m"}}',
            "answers HTTP 400: Error code: 400",  # openai 2 and 3 tell the rest in different words
            "run the same command to go on",
        ),
        (500, "line one\nline\x1b[2J two", "answers HTTP 500: Error code: 500", "run the same command to go on"),
        (429, "{}", "answers HTTP 429: Error code: 429", "run the same command to go on"),
    ],
)
def test_a_failure_is_one_line_that_names_the_service(answered, chat_service, status, body, said, hint):
    chat_service.script = lambda question, times: (status, {}, body)
    message, told = failure(answered)
    assert message.startswith(f"{chat_service.url} {said}") and message.isprintable()
    assert told == hint


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/html", "<html>It works!</html>"),
        ("application/json", "<html>It works!</html>"),
        ("application/json", '{"ok": true}'),
        ("application/json", "[1]"),
        ("application/json", "null"),
        ("application/json", '{"choices": [{}]}'),
        ("application/json", '{"choices": [{"message": {"content": 5}}]}'),
        ("application/json", ""),
    ],
)
def test_a_web_page_in_place_of_json_is_no_answer(answered, chat_service, kind, body):
    chat_service.script = lambda question, times: (200, {"Content-Type": kind}, body)
    said = f"{chat_service.url} does not answer as OpenAI's chat API does", "check base_url: it often ends in /v1"
    assert failure(answered) == said


@pytest.mark.parametrize("content", ['{"choices": []}', None], ids=["no choice", "no content"])
def test_a_service_that_has_nothing_to_say_gives_an_empty_answer(answered, chat_service, content):
    chat_service.script = lambda question, times: (200, {}, content or chat_service.told(None))
    assert in_order(answered(MANY[:1])) == [(MANY[0].text, "")]


def test_answers_keep_their_characters(answered, chat_service):
    text = "  “你好”，😀 𠮷 ñ\n第二行 "
    chat_service.script = lambda question, times: (200, {}, chat_service.told(text))
    assert in_order(answered(MANY[:1])) == [(MANY[0].text, text.strip())]


def test_a_refused_connection_is_told(answered):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    assert failure(answered, base_url=url) == (
        f"no connection to {url}: All connection attempts failed",
        "check base_url and the network",
    )


def test_a_service_that_hangs_is_given_up(answered, chat_service):
    over = threading.Event()
    chat_service.script = lambda question, times: over.wait(20) and None
    try:
        said = failure(answered, timeout=0.2)
    finally:
        over.set()
    assert said == (f"{chat_service.url} did not answer in 0.2 s", "run the same command to go on")


def test_a_missing_key_is_told_before_any_request(answered, chat_service, monkeypatch):
    monkeypatch.setenv("LUMEN_KEY", "  ")
    assert failure(answered, base_url="", key_env="LUMEN_KEY") == (
        "the teacher needs a key, and the environment variable LUMEN_KEY is not set",
        "set it: export LUMEN_KEY=..., or name a service of your own with base_url",
    )
    assert chat_service.requests == []


@pytest.mark.parametrize(("key", "sent"), [(" sk-1\r\n", "Bearer sk-1"), ("", "Bearer none")])
def test_the_key_is_sent_and_a_service_of_your_own_needs_none(answered, chat_service, monkeypatch, key, sent):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    answered(MANY[:1])
    assert chat_service.keys == [sent]


@pytest.mark.parametrize("key", ["sk-密钥", "sk-a\nb", "sk a", "sk-\u200b1"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(answered, chat_service, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    assert failure(answered) == (
        "the key in OPENAI_API_KEY holds a blank or a letter that no key has",
        "copy the key again",
    )
    assert chat_service.requests == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"concurrency": 0}, "openai: concurrency is 0, at least 1 is needed"),
        ({"base_url": "localhost:8000"}, "openai: base_url 'localhost:8000' is no web address"),
        ({"base_url": "http://127.0.0.1:99999/v1"}, "openai: base_url 'http://127.0.0.1:99999/v1' is no web address"),
        ({"base_url": "http://[::1/v1"}, "openai: base_url 'http://[::1/v1' is no web address"),
        ({"base_url": "http：//a/v1"}, "openai: base_url 'http：//a/v1' is no web address"),
        ({"modle": "x"}, 'answer teachers: openai: modle: unknown key; did you mean "model"?'),
    ],
)
def test_options_that_cannot_work_are_mistakes_of_the_bundle(open_lumen, options, said):
    with pytest.raises(BundleError) as caught:
        open_lumen(answers={"openai": options})
    (problem,) = caught.value.problems
    assert (problem.file.name, problem.key) == ("character.yaml", "answers")
    assert problem.what.startswith(said)


def test_whoever_stops_listening_stops_the_asking(open_lumen, tools_of, chat_service):
    questions = [Question(f"gull {number}?", "en") for number in range(500)]
    teacher = OpenAITeacher(base_url=chat_service.url, concurrency=2)
    stream = teacher.answer(questions, tools_of(open_lumen()))
    assert next(stream).question in {"gull 0?", "gull 1?"}
    stream.close()
    assert len(chat_service.requests) < 500


def test_without_questions_nothing_is_asked(answered, chat_service):
    assert answered([]) == []
    assert json.dumps(chat_service.requests) == "[]"
