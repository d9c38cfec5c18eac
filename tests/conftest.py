"""Fixtures that several test files share."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from camelbell_core.character import BundleRef, find_character
from camelbell_core.pipeline import Run, open_run
from camelbell_core.prompts import Prompt
from camelbell_core.roles import LanguageModel, TeacherTools
from camelbell_core.scaffold import new_bundle
from camelbell_core.session import personas


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep every test out of the user's data folder."""
    home = tmp_path / "home"
    monkeypatch.setenv("CAMELBELL_HOME", str(home))
    return home


@pytest.fixture
def open_lumen(tmp_path: Path) -> Callable[..., Run]:
    """Open the scaffold's bundle, with keys of character.yaml changed and files added; its run is in tmp_path/run."""

    def open_it(files: dict[str, str] | None = None, **changes: Any) -> Run:
        root = tmp_path / "bundles" / "lumen"
        if not root.exists():
            new_bundle("lumen", "", root.parent)
        config = root / "character.yaml"
        data = yaml.safe_load(config.read_text(encoding="utf-8")) | changes
        for name, text in {"character.yaml": yaml.safe_dump(data, allow_unicode=True), **(files or {})}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
        return open_run(find_character("lumen", [root.parent]), tmp_path / "run")

    return open_it


class ScriptedModel(LanguageModel):
    """Says the given pieces, one list a reply; a callable piece is called, and its text said if it gives one."""

    name = "scripted"

    def __init__(self, *replies: Sequence[str | Callable[[], str | None]]) -> None:
        self.replies = list(replies)
        self.prompts: list[Prompt] = []
        self.calls: list[tuple[int, float]] = []
        self.said: list[str] = []

    def stream(
        self, prompt: Prompt, max_tokens: int, temperature: float = 0.0, stop: Callable[[], bool] | None = None
    ) -> Iterator[str]:
        """Yield the pieces of the next reply, until it is told to stop."""
        self.prompts.append(prompt)
        self.calls.append((max_tokens, temperature))
        for piece in self.replies.pop(0):
            if stop is not None and stop():
                return
            text = piece() if callable(piece) else piece
            if text is not None:
                self.said.append(text)
                yield text


@pytest.fixture
def scripted() -> type[ScriptedModel]:
    """The model that says what a test gives it."""
    return ScriptedModel


class ChatService:
    """OpenAI's chat API on 127.0.0.1; ``script`` gives status, headers and body for a question's n-th asking."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.script: Callable[[str, int], tuple[int, dict[str, str], str] | None] = lambda question, times: None
        self._lock = threading.Lock()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, headers, text = service._answer(body, self.headers["Authorization"])
                try:
                    self.send_response(status)
                    for name, value in {"Content-Type": "application/json", **headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(text.encode("utf-8"))
                except ConnectionError:
                    pass  # the client was killed

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def _answer(self, body: dict[str, Any], key: str | None) -> tuple[int, dict[str, str], str]:
        question = body["messages"][-1]["content"]
        with self._lock:
            self.requests.append(body)
            self.keys.append(key)
            self.asked[question] += 1
            times = self.asked[question]
        scripted = self.script(question, times)
        return scripted if scripted is not None else (200, {}, self.told(self.answer_to(question)))

    @staticmethod
    def answer_to(question: str) -> str:
        """Return the answer that this service gives to a question when the script says nothing."""
        return f"<{question}>"

    @staticmethod
    def told(answer: str | None) -> str:
        """Return the body of a right reply."""
        message = {"role": "assistant", "content": answer}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        reply = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        return json.dumps(reply, ensure_ascii=False)


@pytest.fixture
def chat_service(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatService]:
    """A running chat service that answers each question with the question in angle brackets."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    service = ChatService()
    yield service
    service.server.shutdown()
    service.server.server_close()


@pytest.fixture
def tools_of() -> Callable[..., TeacherTools]:
    """Return what a teacher of a run works with; ``model`` is what the run's base model would be."""

    def tools(run: Run, model: LanguageModel | None = None) -> TeacherTools:
        def load_model() -> LanguageModel:
            assert model is not None, "this teacher loads no model"
            return model

        persona = personas(run.character, run.registry)
        return TeacherTools(
            character=run.character,
            memory=run.memory,
            rng=run.rng("answers"),
            load_model=load_model,
            persona=persona.__getitem__,
        )

    return tools


@pytest.fixture
def camelbell(tmp_path: Path) -> Callable[..., Any]:
    """Run the command line in a process of its own that stands in tmp_path; text goes in and out as UTF-8."""
    import os
    import subprocess
    import sys

    def run(*arguments: object, stdin: str | bytes = "", env: dict[str, str] | None = None) -> Any:
        given = {k: v for k, v in os.environ.items() if k not in ("CAMELBELL_PLUGINS", "CAMELBELL_STRICT")}
        given |= {"PYTHONPATH": str(tmp_path / "site"), "HF_HUB_OFFLINE": "1", **(env or {})}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "camelbell_core.cli", *map(str, arguments)],
            cwd=tmp_path,
            env=given,
            input=stdin.encode("utf-8") if isinstance(stdin, str) else stdin,
            capture_output=True,
            timeout=120,
        )
        done.stdout, done.stderr = done.stdout.decode("utf-8"), done.stderr.decode("utf-8")
        return done

    return run


@pytest.fixture
def parrot(tmp_path: Path) -> Callable[[str], Path]:
    """Make a model folder of transformers whose model says one text whatever it is asked; return the folder.

    All tokens have one embedding and the layer adds nothing to it, but for the text's own token: so two rows of
    the output matrix decide, the text after any token and the end after the text.
    """

    def make(text: str) -> Path:
        import torch
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
        from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

        said = "".join(piece for piece, _ in pre_tokenizers.ByteLevel(False, use_regex=False).pre_tokenize_str(text))
        words = [*sorted(pre_tokenizers.ByteLevel.alphabet()), said]
        tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0]))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.ByteLevel(False, use_regex=False), pre_tokenizers.Split("", "isolated")]
        )
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens([AddedToken("<bos>"), AddedToken("<eos>")])
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>")
        config = LlamaConfig(
            vocab_size=len(fast),
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=2048,
            bos_token_id=fast.bos_token_id,
            eos_token_id=fast.eos_token_id,
        )
        model = LlamaForCausalLM(config)
        parts = dict(model.named_parameters())
        with torch.no_grad():
            for name in ("o_proj", "down_proj"):
                next(p for key, p in parts.items() if name in key).zero_()
            embedding, out = parts["model.embed_tokens.weight"], parts["lm_head.weight"]
            embedding.zero_()
            embedding[:, 0] = 1.0
            embedding[len(words) - 1] = torch.eye(8)[1]
            out.zero_()
            out[len(words) - 1, 0] = 9.0
            out[fast.eos_token_id, 1] = 9.0
        folder = tmp_path / "parrot"
        model.save_pretrained(folder)
        fast.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of tiny random base models: llama and gemma3, each -plain, -chat and -strict (see tiny_base.py)."""
    from tiny_base import make_bases

    return make_bases(tmp_path_factory.mktemp("bases"))


@pytest.fixture
def small_bundle(tmp_path: Path) -> BundleRef:
    """A complete small bundle in two languages: the scaffold's lighthouse keeper, in tmp_path/small/lumen."""
    return BundleRef("lumen", new_bundle("lumen", "", tmp_path / "small"), "tests")


@pytest.fixture(scope="session")
def real_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder that holds the embedded base, converted once a session, for tests marked real_base."""
    import shutil

    from camelbell_plugins.base_gguf import PACKAGES
    from camelbell_plugins.base_gguf.convert import cached_folder

    home = tmp_path_factory.mktemp("real-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAMELBELL_HOME", str(home))
        cached_folder("embedded", PACKAGES["embedded"])
    yield home
    shutil.rmtree(home)
