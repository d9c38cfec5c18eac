"""Programs that people use, unmodified, against the real server: the openai package and simonw/llm."""

import os
import subprocess
import sys

import openai
import pytest
from serving import TOKEN, make_bundle, serving


@pytest.fixture(scope="module")
def lumen(tmp_path_factory):
    """A server with a token."""
    root = tmp_path_factory.mktemp("served")
    bundles = make_bundle(root / "bundles")
    with serving(root, "lumen", "--no-adapter", characters=bundles, env={"CAMELBELL_TOKEN": TOKEN}) as served:
        yield served


@pytest.fixture
def client(lumen):
    """The openai package's client."""
    with openai.OpenAI(base_url=f"{lumen.url}/v1", api_key=TOKEN, max_retries=0) as made:
        yield made


ASKED = {"zh": "灯塔有多少级台阶？", "en": "How many steps has the lighthouse?"}
LANGUAGES = pytest.mark.parametrize("language", ["zh", "en"])


@LANGUAGES
def test_the_openai_package_reads_a_reply_and_what_it_rests_on(client, language):
    said = client.chat.completions.create(
        model="lumen", messages=[{"role": "user", "content": ASKED[language]}], temperature=0.5, seed=3, max_tokens=50
    )
    assert said.choices[0].message.content == ASKED[language]
    assert said.choices[0].finish_reason == "stop"
    assert said.usage.total_tokens > 0
    assert said.model_extra["camelbell"]["facts"][0]["id"] == "steps"


@LANGUAGES
def test_the_openai_package_reads_a_stream(client, language):
    stream = client.chat.completions.create(
        model="lumen@1-2",
        messages=[{"role": "user", "content": ASKED[language]}],
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, last, usage = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ASKED[language]
    assert last.choices[0].finish_reason == "stop"
    assert last.model_extra["camelbell"]["story_time"] == "1-2"
    assert (usage.choices, usage.usage.completion_tokens > 0) == ([], True)


def test_the_openai_package_lists_and_finds_the_characters(client):
    assert [model.id for model in client.models.list()] == ["lumen"]
    assert client.models.retrieve("lumen@2-1").model_extra["camelbell"]["story_time"] == "2-1"


@pytest.mark.parametrize(
    ("more", "error", "code"),
    [
        ({"model": "nobody"}, openai.NotFoundError, "model_not_found"),
        ({"model": "lumen@9"}, openai.NotFoundError, "model_not_found"),
        ({"messages": [{"role": "user", "content": ""}]}, openai.BadRequestError, "empty_message"),
        ({"n": 2}, openai.BadRequestError, "literal_error"),
        ({"messages": [{"role": "user", "content": "break it"}]}, openai.InternalServerError, "internal_error"),
        ({"messages": [{"role": "user", "content": "长" * 900_000}]}, openai.APIStatusError, "request_too_large"),
    ],
)
def test_the_openai_package_knows_our_errors_as_its_own(client, more, error, code):
    with pytest.raises(error) as caught:
        client.chat.completions.create(**{"model": "lumen", "messages": [{"role": "user", "content": "x"}], **more})
    assert caught.value.code == code


def test_the_openai_package_is_told_when_a_stream_breaks(client):
    said = []
    with pytest.raises(openai.APIError, match="the reply failed"):
        for chunk in client.chat.completions.create(
            model="lumen", messages=[{"role": "user", "content": "break it"}], stream=True
        ):
            said.append(chunk.choices[0].delta.content)
    assert said == ["", "half "]


def test_the_openai_package_with_a_wrong_key_is_told(lumen):
    wrong = openai.OpenAI(base_url=f"{lumen.url}/v1", api_key="sk-wrong", max_retries=0)
    with wrong, pytest.raises(openai.AuthenticationError):
        wrong.models.list()


@pytest.fixture
def llm(lumen, tmp_path):
    """Run simonw/llm with our server as one of its models; return what it prints."""
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- {{model_id: keeper, model_name: lumen, api_base: '{lumen.url}/v1', api_key_name: camelbell}}\n"
        f"- {{model_id: keeper-then, model_name: 'lumen@1-2', api_base: '{lumen.url}/v1', api_key_name: camelbell}}\n",
        encoding="utf-8",
    )

    def run(*arguments, text=""):
        env = {**os.environ, "LLM_USER_PATH": str(tmp_path), "LLM_LOAD_PLUGINS": "", "PYTHONIOENCODING": "utf-8"}
        command = [sys.executable, "-m", "llm", *arguments]
        done = subprocess.run(command, env=env, input=text.encode(), capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode("utf-8")

    return run


@LANGUAGES
@pytest.mark.parametrize("how", [[], ["--no-stream"]])
def test_llm_prints_a_reply(llm, language, how):
    assert llm("prompt", "-m", "keeper", "--key", TOKEN, *how, ASKED[language]) == f"{ASKED[language]}\n"


def test_llm_goes_on_with_a_conversation(llm):
    assert llm("prompt", "-m", "keeper", "--key", TOKEN, "-s", "Be a pirate.", "你好，小灯") == "你好，小灯\n"
    told = llm("prompt", "-c", "--key", TOKEN, "prompt 一")
    assert '[["user", "你好，小灯"], ["assistant", "你好，小灯"]]' in told
    assert "我是小灯" in told


def test_llm_sends_its_options(llm):
    said = llm("prompt", "-m", "keeper-then", "--key", TOKEN, "-o", "temperature", "1.5", "-o", "seed", "9", "dice")
    assert said == "[1.5, null, 9]\n"
