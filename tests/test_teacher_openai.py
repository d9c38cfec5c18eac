import json
import socket
import threading
from collections import Counter

import pytest

from camelbell_core.errors import BundleError, CamelBellError
from camelbell_core.journal import Journal, read_records
from camelbell_core.pipeline import estimate_answers, make_answers, make_questions
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
            "answers HTTP 400: too long [31m",
            "run the same command to go on",
        ),
        (500, "line one\nline\x1b[2J two", "answers HTTP 500: line one line[2J two", "run the same command to go on"),
        (429, "{}", "answers HTTP 429", "run the same command to go on"),
    ],
)
def test_a_failure_is_one_line_that_names_the_service(answered, chat_service, status, body, said, hint):
    chat_service.script = lambda question, times: (status, {}, body)
    message, told = failure(answered)
    assert message == f"{chat_service.url} {said}" and message.isprintable()
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
        f"no connection to {url}: Connection refused",
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
        ({"modell": "x"}, 'answer teachers: openai: modell: unknown key; did you mean "model"?'),
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


@pytest.mark.parametrize(
    ("said", "question", "language"),
    [
        (("你好！", "你好，欢迎来灯塔。"), "它多高？", "zh"),
        (("Hi!", "Welcome to the lighthouse."), "How tall is it?", "en"),
    ],
)
def test_a_question_is_asked_after_what_was_said(answered, chat_service, said, question, language):
    (pair,) = answered([Question(question, language, history=said)])
    roles = [(message["role"], message["content"]) for message in chat_service.requests[0]["messages"][1:]]
    assert roles == [("user", said[0]), ("assistant", said[1]), ("user", question)]
    assert pair.history == said


def test_an_answer_is_paid_for_once_whatever_becomes_of_the_pairs(open_lumen, chat_service):
    run = open_lumen(answers={"openai": {"base_url": chat_service.url}})
    make_questions(run, 12)
    make_answers(run, lambda: pytest.fail("no model is needed"))
    before = run.workspace.pairs.read_text(encoding="utf-8")
    run.workspace.pairs.unlink()
    make_answers(run, lambda: pytest.fail("no model is needed"))
    assert sorted(run.workspace.pairs.read_text(encoding="utf-8").splitlines()) == sorted(before.splitlines())
    assert len(chat_service.requests) == 12
    run = open_lumen(answers={"openai": {"base_url": chat_service.url, "temperature": 0.1}})
    run.workspace.pairs.unlink()
    make_answers(run, lambda: pytest.fail("no model is needed"))
    assert len(chat_service.requests) == 24


def test_an_estimate_is_made_without_asking(open_lumen, chat_service):
    run = open_lumen(answers={"openai": {"base_url": chat_service.url, "price_in": 1, "price_out": 2}})
    assert estimate_answers(run) is None
    make_questions(run, 12)
    estimate = estimate_answers(run)
    assert (estimate.requests, estimate.tokens_out) == (12, 12 * 300)
    assert 12 * 20 < estimate.tokens_in < 12 * 400
    assert estimate.cost == pytest.approx((estimate.tokens_in + 2 * estimate.tokens_out) / 1e6)
    assert chat_service.requests == []
    make_answers(run, lambda: pytest.fail("no model is needed"))
    assert estimate_answers(run) is None
    assert estimate_answers(open_lumen(answers="canon")) is None


def test_the_key_is_in_no_file_of_the_workspace(open_lumen, chat_service, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    run = open_lumen(answers={"openai": {"base_url": chat_service.url, "concurrency": 1}})
    make_questions(run, 12)
    chat_service.script = lambda question, times: (400, {}, "sk-very-secret?") if len(chat_service.asked) == 1 else None
    with pytest.raises(CamelBellError, match=r"HTTP 400: \[the key\]\?"):
        make_answers(run, lambda: pytest.fail("no model is needed"))
    chat_service.script = lambda question, times: None
    make_answers(run, lambda: pytest.fail("no model is needed"))
    files = [file for file in run.workspace.root.rglob("*") if file.is_file()]
    assert {"pairs.jsonl", "replies.sqlite"} <= {file.name for file in files}
    assert not [file for file in files if b"sk-very-secret" in file.read_bytes()]
