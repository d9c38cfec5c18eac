"""``--engine vllm`` up to the launch: the command, its process, and what a server of vLLM's API is sent.

In the place of vLLM stands a program of that name on the PATH: it checks what it is started with as vLLM's
command line wants it, serves /health and /v1/completions, and says what it was asked.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx2 as httpx
import pytest
from peft import LoraConfig, get_peft_model
from serving import make_bundle, serving, until
from tiny_base import open_base

from camelbell_core.adapters import peft_warnings, write_fingerprint
from camelbell_core.errors import CamelBellError
from camelbell_core.prompts import layout_for
from camelbell_plugins.frontend_serve.vllm import command

STAND_IN = """#!%s
import argparse, json, os, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

parser = argparse.ArgumentParser()
parser.add_argument("serve")
parser.add_argument("model")
for name in ("served-model-name", "host", "dtype", "generation-config"):
    parser.add_argument("--" + name)
for name in ("port", "max-model-len", "max-loras", "max-lora-rank", "tensor-parallel-size"):
    parser.add_argument("--" + name, type=int)
for name in ("enable-lora", "enable-prefix-caching"):
    parser.add_argument("--" + name, action="store_true")
parser.add_argument("--lora-modules", nargs="+", default=[])
given = parser.parse_args()
with open(os.environ["STARTED"], "w") as file:
    json.dump({**vars(given), "pid": os.getpid()}, file)
if os.environ.get("BROKEN"):
    sys.exit(7)
names = [given.served_model_name, *(module.split("=")[0] for module in given.lora_modules)]
assert all(os.path.isfile(module.split("=")[1] + "/adapter_config.json") for module in given.lora_modules)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/v1/completions" and body["model"] in names and body["stream"]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        told = json.dumps(body)
        for text in (told[:20], told[20:], "\\ufffd"):
            choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": None}
            row = {"id": "1", "object": "text_completion", "created": 0, "model": "m", "choices": [choice]}
            self.wfile.write(("data: " + json.dumps(row) + "\\n\\n").encode())
        self.wfile.write(b"data: [DONE]\\n\\n")

    def log_message(self, *args):
        pass


ThreadingHTTPServer((given.host, given.port), Handler).serve_forever()
"""


@pytest.fixture
def base(tiny_bases):
    """A folder of a base."""
    return tiny_bases["llama-plain"]


@pytest.fixture
def adapter(base, tmp_path):
    """An adapter of rank 24 for it, as the trainer writes one."""
    opened = open_base(base)
    with peft_warnings():
        tuned = get_peft_model(opened.model, LoraConfig(r=24, target_modules=["q_proj"], init_lora_weights=False))
    tuned.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=False)
    write_fingerprint(tmp_path / "adapter", opened, layout_for(opened.tokenizer), tuned, {})
    return tmp_path / "adapter"


@pytest.fixture
def env(tmp_path):
    """An environment with the stand-in on the PATH."""
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(STAND_IN % sys.executable, encoding="utf-8")
    program.chmod(0o755)
    return {"PATH": f"{program.parent}:{os.environ['PATH']}", "STARTED": str(tmp_path / "started.json")}


def asked_of_vllm(served, text, **more):
    return json.loads(served.said(text, **more))


@pytest.mark.parametrize("language", ["zh", "en"])
def test_vllm_is_started_with_base_and_adapter_and_asked_with_our_own_tokens(base, adapter, env, tmp_path, language):
    root = make_bundle(tmp_path / "bundles")
    asked = {"zh": "灯塔有多少级台阶？", "en": "How many steps has the lighthouse?"}[language]
    more = ("--engine", "vllm", "--base", str(base), "--adapter", str(adapter), "--no-memory")
    with serving(
        tmp_path / "s", "lumen", *more, "--engine-args", "--tensor-parallel-size 2", characters=root, env=env
    ) as lumen:
        started = json.loads(Path(env["STARTED"]).read_text(encoding="utf-8"))
        got = asked_of_vllm(lumen, asked, temperature=1.5, top_p=0.5, seed=3, max_tokens=40)
        greedy = asked_of_vllm(lumen, asked)
        about = lumen.http.get("/v1/models/lumen").json()["camelbell"]
        until(lambda: lumen.counted("camelbell_running") == 0)
        log = lumen.log.read_text(encoding="utf-8")
    assert f"+ vllm serve {base} --served-model-name camelbell-base" in log
    assert (started["model"], started["max_lora_rank"], started["max_loras"]) == (str(base), 32, 1)
    assert (started["lora_modules"], started["tensor_parallel_size"]) == ([f"camelbell-lumen={adapter}"], 2)
    layout = layout_for(open_base(base).tokenizer)
    persona = {"zh": "我是小灯", "en": "I am Lumen"}[language]
    said = layout.tokenizer.decode(got.pop("prompt"), skip_special_tokens=True)
    assert persona in said and asked in said
    assert said.endswith({"zh": f"问：{asked}\n答：", "en": f"Q: {asked}\nA:"}[language])
    wanted = {"model": "camelbell-lumen", "max_tokens": 40, "stream": True, "stop_token_ids": layout.end_ids}
    assert got == {**wanted, "temperature": 1.5, "top_p": 0.5, "seed": 3}
    assert (greedy["temperature"], greedy["max_tokens"], greedy["seed"]) == (0.0, 96, None)
    assert about["adapter"]
    with pytest.raises(ProcessLookupError):  # vLLM ended with the server
        os.kill(started["pid"], 0)


def test_a_character_without_adapter_speaks_with_the_base(base, env, tmp_path):
    root = make_bundle(tmp_path / "bundles")
    more = ("--engine", "vllm", "--base", str(base), "--no-adapter", "--no-memory")
    with serving(tmp_path / "s", "lumen", *more, characters=root, env=env) as lumen:
        assert asked_of_vllm(lumen, "你好")["model"] == "camelbell-base"
        assert json.loads(Path(env["STARTED"]).read_text(encoding="utf-8"))["enable_lora"] is False


def answers(port):
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_a_vllm_that_runs_elsewhere_is_used_and_when_it_is_gone_that_is_told(base, env, tmp_path):
    root = make_bundle(tmp_path / "bundles")
    shown = ["vllm", *command(base, {}, 0)[1:]]
    from camelbell_plugins.frontend_serve.vllm import free_port

    port = free_port()
    shown[shown.index("--port") + 1] = str(port)
    other = subprocess.Popen(shown, env={**os.environ, **env})
    try:
        until(lambda: Path(env["STARTED"]).exists() and answers(port))
        more = ("--engine-url", f"http://127.0.0.1:{port}/", "--base", str(base), "--no-adapter", "--no-memory")
        with serving(tmp_path / "s", "lumen", *more, characters=root) as lumen:
            assert asked_of_vllm(lumen, "你好")["model"] == "camelbell-base"
            other.send_signal(signal.SIGKILL)
            other.wait()
            error = lumen.ask("你好", status=503)["error"]
            assert error["code"] == "model_failed"
            assert error["message"].startswith("vLLM does not reply: ")
    finally:
        other.kill()
        other.wait()


def start(tmp_path, *arguments, env=None):
    root = make_bundle(tmp_path / "bundles")
    done = subprocess.run(
        [sys.executable, "-m", "camelbell_core.cli", "serve", "lumen", "--port", "0", "--characters", str(root), *arguments],
        env={**os.environ, **(env or {})}, capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    return done.stderr.decode("utf-8")


def test_without_vllm_the_error_shows_what_to_install_and_the_command(base, tmp_path):
    said = start(tmp_path, "--engine", "vllm", "--base", str(base), "--no-adapter", env={"PATH": "/nowhere"})
    assert "vLLM is not installed here\n  pip install 'camelbell[vllm]'" in said
    assert f"  vllm serve {base} --served-model-name camelbell-base --host 127.0.0.1 --port " in said


def test_a_vllm_that_does_not_start_is_told(base, env, tmp_path):
    said = start(tmp_path, "--engine", "vllm", "--base", str(base), "--no-adapter", env={**env, "BROKEN": "1"})
    assert "vLLM ended with 7 before it was ready" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--base", "clerk"], "the base 'clerk' has no folder of transformers"),
        (["--base", "BASE", "--engine-args", "'x"], "--engine-args: no closing quotation"),
        (["--base", "OTHER", "--adapter", "ADAPTER"], "was trained on another base model"),
    ],
)
def test_what_vllm_cannot_serve_is_told_before_it_starts(tiny_bases, base, adapter, tmp_path, arguments, words):
    places = {"BASE": str(base), "OTHER": str(tiny_bases["gemma3-plain"]), "ADAPTER": str(adapter)}
    given = [places.get(argument, argument) for argument in arguments]
    said = start(tmp_path, "--engine", "vllm", *([] if "ADAPTER" in arguments else ["--no-adapter"]), *given)
    assert words in said
    assert "Traceback" not in said


@pytest.mark.parametrize(("rank", "room"), [(1, "8"), (8, "8"), (9, "16"), (24, "32"), (256, "256")])
def test_the_rank_that_vllm_makes_room_for(tmp_path, rank, room):
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"r": 1, "rank_pattern": {"q_proj": rank}}), encoding="utf-8"
    )
    made = command(Path("base"), {"a": tmp_path}, 1)
    assert made[made.index("--max-lora-rank") + 1] == room


def test_an_adapter_of_too_high_a_rank_is_refused(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 300}), encoding="utf-8")
    with pytest.raises(CamelBellError, match="rank 300"):
        command(Path("base"), {"a": tmp_path}, 1)
