"""`camelbell serve`: the real program on 127.0.0.1, spoken to over HTTP."""

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time

import httpx2 as httpx
import pytest
from serving import TOKEN, events_of, make_bundle, request, serving, until

GUARDED = ("length", {"persona_break": {}})
LANGUAGES = pytest.mark.parametrize("language", ["zh", "en"])
ASKED = {"zh": "灯塔有多少级台阶？", "en": "How many steps has the lighthouse?"}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Folders of bundles: ``lumen`` says back what it is asked, ``strict`` has a guard."""
    root = tmp_path_factory.mktemp("bundles")
    make_bundle(root)
    return make_bundle(root, "strict", guard=GUARDED)


@pytest.fixture(scope="module")
def lumen(bundles, tmp_path_factory):
    """Both of them served, without a token."""
    with serving(
        tmp_path_factory.mktemp("served"), "lumen", "strict", "lumen@1-2", "--no-adapter", characters=bundles
    ) as s:
        yield s


@pytest.fixture
def serve(bundles, tmp_path):
    """Serve with other arguments."""
    return lambda *names, **more: serving(tmp_path / "served", *names, "--no-adapter", characters=bundles, **more)


# --- replies --------------------------------------------------------------------------------------


@LANGUAGES
def test_a_reply_has_openai_s_shape_and_tells_what_it_rests_on(lumen, language):
    reply = lumen.ask(ASKED[language])
    fact = {"zh": "小灯的灯塔有九十九级台阶。", "en": "The lighthouse has ninety-nine steps."}[language]
    first, *rest = reply["camelbell"].pop("facts")
    assert (first, [set(fact) for fact in rest]) == (
        {"id": "steps", "text": fact, "part": None, "chapter": None},
        [{"id", "text", "part", "chapter"}] * len(rest),
    )
    assert reply.pop("id").startswith("chatcmpl-")
    assert abs(reply.pop("created") - time.time()) < 600
    assert reply.pop("system_fingerprint").startswith("fp_")
    usage = reply.pop("usage")
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > usage["completion_tokens"] > 0
    message = {"role": "assistant", "content": ASKED[language], "refusal": None}
    assert reply == {
        "object": "chat.completion",
        "model": "lumen",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "camelbell": {
            "language": language, "story_time": None, "composed": False, "held_back": [], "ignored": [],
        },
    }  # fmt: skip


@LANGUAGES
def test_a_stream_gives_the_same_in_pieces(lumen, language):
    asked = ASKED[language]
    first, *pieces, last, done = lumen.events(asked)
    assert (first["choices"][0]["delta"], done) == ({"role": "assistant", "content": ""}, "[DONE]")
    assert [piece["choices"][0]["delta"] for piece in pieces] == [{"content": letter} for letter in asked]
    assert (last["choices"][0]["delta"], last["choices"][0]["finish_reason"]) == ({}, "stop")
    assert {event["id"] for event in (first, *pieces, last)} == {first["id"]}
    assert {event["object"] for event in (first, *pieces, last)} == {"chat.completion.chunk"}
    assert all(event["choices"][0]["finish_reason"] is None for event in (first, *pieces))
    assert not any("camelbell" in event for event in (first, *pieces))
    assert last["camelbell"] == lumen.ask(asked)["camelbell"]


def test_a_stream_tells_its_usage_where_it_is_asked_to(lumen):
    *_, last, usage, done = lumen.events("你好", stream_options={"include_usage": True})
    assert (usage["choices"], usage["usage"], done) == ([], lumen.ask("你好")["usage"], "[DONE]")
    assert last["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("asked", "more", "said", "finish"),
    [
        ("count 5", {}, "0 1 2 3 4", "stop"),
        ("count 5", {"stop": "3"}, "0 1 2", "stop"),
        ("count 5", {"stop": ["9", "2 3"]}, "0 1", "stop"),
        ("count 5", {"stop": []}, "0 1 2 3 4", "stop"),
        ("count 5", {"stop": "0"}, "", "stop"),
        ("count 9", {"max_tokens": 3}, "0 1 2", "length"),
        ("count 9", {"max_completion_tokens": 2, "max_tokens": 5}, "0 1", "length"),
        ("count 3", {"max_tokens": 1000000}, "0 1 2", "stop"),
        ("dice", {}, "[0.0, null, null]", "stop"),
        ("dice", {"temperature": 1.5, "top_p": 0.25, "seed": -7}, "[1.5, 0.25, -7]", "stop"),
        ("dice", {"temperature": 1e-300}, "[0.0, null, null]", "stop"),
        (
            "dice",
            {"temperature": None, "top_p": None, "seed": None, "n": None, "stop": None},
            "[0.0, null, null]",
            "stop",
        ),
    ],
)
def test_the_usual_parameters_have_their_effect(lumen, asked, more, said, finish):
    choice = lumen.ask(asked, **more)["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (said, finish)
    events = lumen.events(asked, **more)
    streamed = "".join(event["choices"][0]["delta"].get("content", "") for event in events[:-1])
    assert (streamed.strip(), events[-2]["choices"][0]["finish_reason"]) == (said, finish)


def test_a_stop_text_ends_the_work_too(lumen):
    asked = "count 4000 "
    assert lumen.said(asked, stop="5") == "0 1 2 3 4"
    assert f"end {asked.strip()}" in lumen.noted()


def test_parameters_without_effect_are_accepted_and_told(lumen):
    told = lumen.ask(
        {"role": "system", "content": "Be a pirate."},
        {"role": "user", "content": "你好"},
        frequency_penalty=1,
        user="x",
    )
    assert told["camelbell"]["ignored"] == ["system", "frequency_penalty", "user"]


def test_the_history_is_replayed_and_the_persona_is_the_bundle_s(lumen):
    told = json.loads(
        lumen.said(
            "你好", "你好！", {"role": "system", "content": "Forget it."}, {"role": "user", "content": "prompt 一"}
        )
    )
    assert told["persona"].startswith("我是小灯")
    assert told["history"] == [["user", "你好"], ["assistant", "你好！"]]


def test_of_a_long_history_the_oldest_turns_leave_the_prompt_never_persona_and_facts(lumen):
    said = [text for number in range(500) for text in (f"问题{number}" * 20, f"回答{number}" * 20)]
    told = json.loads(lumen.said(*said, "prompt 灯塔有多少级台阶？"))
    assert told["history"] == [["user" if i % 2 == 0 else "assistant", text] for i, text in enumerate(said[-8:])]
    assert told["persona"].startswith("我是小灯")
    assert told["facts"] > 0


@LANGUAGES
def test_the_guard_judges_and_what_it_holds_back_is_told(lumen, language):
    machine = {"zh": "我是AI。", "en": "As an AI, I cannot."}[language]
    told = lumen.ask(machine, model="strict")
    assert told["camelbell"]["composed"]
    assert {held["filter"] for held in told["camelbell"]["held_back"]} == {"persona_break"}
    assert machine not in told["choices"][0]["message"]["content"]


def test_control_characters_of_a_model_go_nowhere_and_html_is_text(lumen):
    assert lumen.said("raw") == "[31mred <script>alert(1)</script> ? end"
    reply = lumen.http.post("/v1/chat/completions", json=request("raw"))
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-content-type-options"] == "nosniff"


# --- who speaks -----------------------------------------------------------------------------------


def test_each_character_is_a_model_and_so_is_each_story_time(lumen):
    listed = lumen.http.get("/v1/models").json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["lumen", "strict", "lumen@1-2"]
    first, _, then = listed["data"]
    about = first["camelbell"]
    assert (first["object"], first["owned_by"], about["character"], about["story_time"]) == (
        "model",
        "camelbell",
        "lumen",
        None,
    )
    assert (about["chapters"], about["part"]) == ([3, 3], {"zh": "第{n}卷", "en": "volume {n}"})
    assert (about["title"], about["greeting"]["zh"]) == ({"zh": "小灯", "en": "Lumen"}, "你好，我是小灯。")
    assert then["camelbell"]["story_time"] == "1-2"
    assert lumen.http.get("/v1/models/lumen@2").json()["camelbell"]["story_time"] == "2-3"
    assert lumen.http.get("/v1/models/lumen").json() == first


@pytest.mark.parametrize(
    ("at", "known"), [("", True), ("@1-3", False), ("@2-1", True), ("@1", False), ("@volume", None)]
)
def test_at_a_story_time_the_character_knows_only_what_it_knew_then(lumen, at, known):
    if known is None:
        assert lumen.ask("x", model=f"lumen{at}", status=404)["error"]["param"] == "model"
        return
    told = lumen.ask("岛上常常起雾吗？", model=f"lumen{at}")["camelbell"]
    fog = {"id": "fog", "text": "岛上常常起雾。", "part": 2, "chapter": 1}
    assert (fog in told["facts"]) is known
    assert told["story_time"] == {"": None, "@1": "1-3"}.get(at, at[1:])


@LANGUAGES
def test_what_is_known_at_a_point_of_the_story_can_be_asked(lumen, language):
    then = lumen.http.get("/camelbell/story/lumen/1-3", params={"language": language}).json()
    now = lumen.http.get("/camelbell/story/lumen/2-1", params={"language": language}).json()
    assert (then["story_time"], now["story_time"], now["known"] - then["known"]) == ("1-3", "2-1", 1)
    fog = {"zh": "岛上常常起雾。", "en": "Fog is frequent on the island."}[language]
    assert (then["lately"], now["lately"]) == ([], [{"id": "fog", "text": fog, "part": 2, "chapter": 1}])
    assert lumen.http.get("/camelbell/story/lumen/9-9").status_code == 404
    assert lumen.http.get("/camelbell/story/nobody/1-1").status_code == 404


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "status", "param", "words"),
    [
        ({"model": "lumne"}, 404, "model", "there is no model 'lumne'; did you mean \"lumen\"?; there are: lumen, strict"),
        ({"model": "lumen@9-9"}, 404, "model", "there is no story time '9-9'; allowed: 1-1 to 2-3"),
        ({"model": "lumen@"}, 404, "model", "there is no story time ''"),
        ({"model": 7}, 400, "model", "string"),
        ({"model": None}, 400, "model", "string"),
        ({"messages": []}, 400, "messages", "at least 1"),
        ({"messages": "你好"}, 400, "messages", "list"),
        ({"messages": [{"role": "user", "content": ""}]}, 400, "messages[0]", "the message is empty"),
        ({"messages": [{"role": "user", "content": "\x00\x1b\u202e"}]}, 400, "messages[0]", "the message is empty"),
        ({"messages": [{"role": "user", "content": "长" * 8001}]}, 400, "messages[0]", "8001 characters, and 8000 are allowed"),
        ({"messages": [{"role": "king", "content": "x"}]}, 400, "messages.0.role", "'system', 'developer'"),
        ({"messages": [{"role": "user", "content": "x"}] * 2001}, 400, "messages", "at most 2000"),
        ({"n": 2}, 400, "n", "should be 1"),
        ({"temperature": 3}, 400, "temperature", "less than or equal to 2"),
        ({"temperature": "hot"}, 400, "temperature", "number"),
        ({"top_p": -1}, 400, "top_p", "greater than or equal to 0"),
        ({"max_tokens": 0}, 400, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": 10**30}, 200, "", ""),
        ({"seed": 2**63}, 400, "seed", "less than or equal"),
        ({"seed": 0.5}, 400, "seed", "integer"),
        ({"stop": ["a"] * 5}, 400, "stop", "5 stop texts are given, and 4 are allowed"),
        ({"stop": ["a" * 201]}, 400, "stop.0", "at most 200"),
        ({"stream": "perhaps"}, 400, "stream", "boolean"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_openai_s_shape(lumen, change, status, param, words):
    reply = lumen.http.post("/v1/chat/completions", json={**request("hi"), **change})
    assert reply.status_code == status
    if status == 200:
        return
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"] and error["param"].startswith(param)) == ("invalid_request_error", True)
    assert words in error["message"]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"a":' * 100_000, "application/json", 400),
        (b"null", "application/json", 400),
        (b"1" * 5000, "application/json", 400),
        (b'{"model":"lumen","messages":[{"role":"user","content":"\\ud800"}]}', "application/json", 200),
        (b'{"model":"lumen","temperature":NaN,"messages":[{"role":"user","content":"a"}]}', "application/json", 400),
        (b'{"model":"\\ud800","messages":[{"role":"user","content":"a"}]}', "application/json", 400),
        (b'{"model":"lumen","messages":[{"role":"user","content":"a"}]}', "text/plain", 400),
        (b'{"model":"lumen","messages":[{"role":"user","content":"a"}]}', "", 400),
        (json.dumps(request("好" * 1_000_000)).encode(), "application/json", 413),
        (json.dumps(request("a" * 1_000_000)).encode(), "application/json", 400),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_any_body_is_answered_and_the_server_goes_on(lumen, body, kind, status):
    reply = lumen.http.post("/v1/chat/completions", content=body, headers={"Content-Type": kind} if kind else {})
    assert reply.status_code == status, reply.text
    if status != 200:
        assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
    assert lumen.said("你好") == "你好"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("GET", "/v1/chat/completions", 405), ("POST", "/v1/models", 405), ("GET", "/docs", 404),
     ("GET", "/../../etc/passwd", 404), ("GET", "/camelbell/avatars/..%2f..%2fetc%2fpasswd", 404), ("BREW", "/", 405)],
)  # fmt: skip
def test_a_wrong_address_is_told_in_openai_s_shape(lumen, method, path, status):
    reply = lumen.http.request(method, path)
    assert (reply.status_code, set(reply.json())) == (status, {"error"})


def test_a_model_that_fails_is_told_and_the_next_reply_comes(lumen):
    broken = lumen.ask("break it", status=500)["error"]
    assert (broken["type"], broken["code"]) == ("server_error", "internal_error")
    ill = lumen.ask("refuse it", status=503)["error"]
    assert (ill["message"], ill["code"]) == ("the clerk is ill; come back tomorrow", "model_failed")
    *_, half, error = lumen.events("break it")
    assert (half["choices"][0]["delta"], error["error"]["code"]) == ({"content": "half "}, "internal_error")
    assert "the clerk broke its pencil" in lumen.log.read_text(encoding="utf-8")
    assert lumen.said("你好") == "你好"


# --- many at once, and those who leave ------------------------------------------------------------


def test_32_streams_at_once_are_served_in_the_order_of_their_arrival(serve):
    with serve("lumen") as served:
        asked = [f"{number} 你好" for number in range(32)]

        async def all_of_them():
            async with httpx.AsyncClient(base_url=served.url, timeout=60, trust_env=False) as client:

                async def one(text):
                    async with client.stream("POST", "/v1/chat/completions", json=request(text, stream=True)) as reply:
                        lines = [line async for line in reply.aiter_lines()]
                    assert lines[-2] == "data: [DONE]"
                    rows = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
                    return "".join(row["choices"][0]["delta"].get("content", "") for row in rows)

                tasks = []
                for text in asked:
                    tasks.append(asyncio.create_task(one(text)))
                    await asyncio.sleep(0.005)
                return await asyncio.gather(*tasks)

        occupied = threading.Thread(target=served.said, args=("count 100",))
        occupied.start()
        until(lambda: "begin count 100" in served.noted())
        assert asyncio.run(all_of_them()) == asked
        occupied.join()
        begun = [
            line.removeprefix("begin ") for line in served.noted() if line.startswith("begin ") and line != "begin ?"
        ]
        assert begun == ["count 100", *asked]


def test_a_full_line_answers_429_and_says_when_to_come_again(serve):
    with serve("lumen", "--room", "1") as served:
        threads = []
        for asked in ("count 200", "你好"):
            threads.append(threading.Thread(target=served.said, args=(asked,)))
            threads[-1].start()
            number = len(threads)
            until(lambda: served.counted("camelbell_waiting") + served.counted("camelbell_running") == number)  # noqa: B023
        reply = served.http.post("/v1/chat/completions", json=request("too late"))
        assert (reply.status_code, reply.json()["error"]["type"]) == (429, "rate_limit_error")
        assert int(reply.headers["retry-after"]) >= 1
        assert served.http.get("/healthz").json() == {"status": "ok", "waiting": 1}
        for thread in threads:
            thread.join()
        assert served.said("now") == "now"
        assert "begin too late" not in served.noted()


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_stops_its_reply(serve, stream):
    with serve("lumen") as served, socket.create_connection(("127.0.0.1", served.port)) as client:
        body = json.dumps(request("count 4000", stream=stream)).encode()
        client.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
        )  # fmt: skip
        until(lambda: "begin count 4000" in served.noted())
        client.close()
        until(lambda: "end count 4000" in served.noted())
        assert served.said("next") == "next"
        assert served.counted("camelbell_replies_total", ended="left") == 1


def test_who_leaves_the_line_is_never_served(serve):
    with serve("lumen") as served:
        first = threading.Thread(target=served.said, args=("count 100",))
        first.start()
        until(lambda: "begin count 100" in served.noted())
        with pytest.raises(httpx.ReadTimeout):
            served.http.post("/v1/chat/completions", json=request("impatient"), timeout=0.3)
        until(lambda: served.counted("camelbell_waiting") == 0)
        first.join()
        assert served.said("next") == "next"
        assert "begin impatient" not in served.noted()


def test_a_stopping_server_stops_its_replies(serve):
    with serve("lumen") as served:
        with served.http.stream("POST", "/v1/chat/completions", json=request("count 4000", stream=True)) as reply:
            until(lambda: "begin count 4000" in served.noted())
            served.process.terminate()
            assert [*events_of(reply)][-1]["error"]["code"] == "stopping"
        served.process.wait(20)
        assert "end count 4000" in served.noted()


# --- safety ---------------------------------------------------------------------------------------


def test_with_a_token_all_but_page_and_health_needs_it_and_no_log_holds_it(serve):
    with serve("lumen", "--access-log", "--host", "0.0.0.0", env={"CAMELBELL_TOKEN": TOKEN}) as served:
        served.http.base_url = f"http://127.0.0.1:{served.port}"
        for path in ("/", "/app.js", "/style.css", "/icon.svg", "/healthz"):
            assert served.http.get(path).status_code == 200
        wrong = ("", "Bearer", "Bearer x", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer é")
        for path in ("/v1/models", "/metrics", "/openapi.json", "/camelbell/story/lumen/1-1", "/nowhere"):
            for given in wrong:
                reply = served.http.get(path, headers={"Authorization": given.encode()})
                assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")
                assert reply.headers["www-authenticate"] == "Bearer"
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert served.http.get("/v1/models", headers=right).status_code == 200
        reply = served.http.post("/v1/chat/completions", json=request("break it"), headers=right)
        assert reply.status_code == 500
        log = served.log.read_text(encoding="utf-8")
    assert '"GET /v1/models HTTP/1.1" 200' in log
    assert TOKEN not in log + served.log.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost:8000", 200),
        ("LOCALHOST", 200),
        ("[::1]:80", 200),
        ("evil.example", 403),
        ("", 403),
    ],
)
def test_a_page_elsewhere_that_points_here_is_refused(lumen, host, status):
    assert lumen.http.get("/v1/models", headers={"Host": host}).status_code == status


def test_pages_elsewhere_may_not_read_and_need_leave_to_send(lumen):
    away = {"Origin": "https://evil.example"}
    reply = lumen.http.get("/v1/models", headers=away)
    assert "access-control-allow-origin" not in reply.headers
    assert reply.headers["cross-origin-resource-policy"] == "same-origin"
    assert (
        lumen.http.options(
            "/v1/chat/completions", headers={**away, "Access-Control-Request-Method": "POST"}
        ).status_code
        == 405
    )
    simple = lumen.http.post(
        "/v1/chat/completions", content=json.dumps(request("x")), headers={**away, "Content-Type": "text/plain"}
    )
    assert simple.status_code == 400


def test_a_websocket_is_refused(lumen):
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "x" * 16,
        "Sec-WebSocket-Version": "13",
    }
    assert lumen.http.get("/nowhere", headers=upgrade).status_code == 404


# --- how it starts --------------------------------------------------------------------------------


def start(bundles, tmp_path, *arguments, env=None):
    """Run ``camelbell serve`` that must fail; return what it says."""
    import os

    given = {k: v for k, v in os.environ.items() if k != "CAMELBELL_TOKEN"} | (env or {})
    done = subprocess.run(
        [sys.executable, "-m", "camelbell_core.cli", "serve", *arguments, "--characters", str(bundles)],
        env=given, capture_output=True, timeout=60, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    return done.stderr.decode("utf-8")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nobody"], "there is no character 'nobody'"),
        (["lumen@9-9"], "there is no story time '9-9'"),
        (["lumen", "--base", "nonsense"], "no base model is called 'nonsense'"),
        (
            ["lumen", "--host", "0.0.0.0"],
            "'0.0.0.0' can be called from other machines, so a token is needed\n  set one: CAMELBELL_TOKEN=",
        ),
        (["lumen", "--host", "192.0.2.1"], "so a token is needed"),
        (["lumen", "strict", "--workspace", "x"], "serve one, or leave them out"),
        (["lumen", "--port", "70000"], "70000"),
        ([], "Missing argument"),
    ],
)
def test_a_start_that_cannot_be_is_told_in_a_line(bundles, tmp_path, arguments, words):
    said = start(bundles, tmp_path, *arguments)
    assert words in said
    assert "Traceback" not in said


@pytest.mark.parametrize("token", ["short", "with a blank in it, though long", "密" * 20])
def test_a_token_that_can_be_guessed_is_refused_and_not_shown(bundles, tmp_path, token):
    said = start(bundles, tmp_path, "lumen", env={"CAMELBELL_TOKEN": token})
    assert "the token must be 16 or more ASCII letters and digits" in said
    assert token not in said


def test_an_address_that_is_not_ours_is_told(bundles, tmp_path):
    said = start(bundles, tmp_path, "lumen", "--no-adapter", "--host", "192.0.2.1", env={"CAMELBELL_TOKEN": TOKEN})
    assert "cannot listen on 192.0.2.1 port 8000: cannot assign requested address" in said


def test_a_port_in_use_is_told(lumen, bundles, tmp_path):
    said = start(bundles, tmp_path, "lumen", "--no-adapter", "--port", str(lumen.port))
    assert f"cannot listen on 127.0.0.1 port {lumen.port}: address already in use" in said
    assert "choose: --port 8001" in said


def test_a_character_can_choose_the_server_as_its_frontend(tmp_path):
    root = make_bundle(tmp_path / "own", frontend={"serve": {"port": 0, "room": 3}})
    import os

    process = subprocess.Popen(
        [sys.executable, "-m", "camelbell_core.cli", "chat", "lumen", "--no-adapter", "--characters", str(root)],
        stderr=subprocess.PIPE, env=dict(os.environ), cwd=tmp_path,
    )  # fmt: skip
    try:
        lines = [process.stderr.readline().decode() for _ in range(2)]
        url = lines[1].split()[1]
        reply = httpx.post(f"{url}/chat/completions", json=request("你好"), trust_env=False)
        assert reply.json()["choices"][0]["message"]["content"] == "你好"
    finally:
        process.terminate()
        process.wait(20)
        process.stderr.close()


def test_the_help_imports_no_server():
    code = (
        "import camelbell_core.cli as c, sys; sys.argv=['camelbell','--help']\ntry: c.main()\nexcept SystemExit: pass\n"
    )
    code += "print([m for m in ('fastapi', 'uvicorn', 'asyncio', 'prometheus_client') if m in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert done.stderr.decode().strip() == "[]"
    assert b"serve" in done.stdout
