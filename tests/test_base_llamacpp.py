"""base_llamacpp: llama.cpp says what transformers says, with adapters, from ids, on one base in memory."""

from __future__ import annotations

import copy
import gc
import json
import subprocess
import sys
import threading
import weakref
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_base import EN, PROMPTS, ZH
from tiny_gguf import F32, original, randomise, write_gguf
from transformers import AutoTokenizer

from camelbell_core.adapters import peft_warnings, write_fingerprint
from camelbell_core.errors import CamelBellError, ModelMismatch
from camelbell_core.model import TorchModel
from camelbell_core.prompts import Prompt
from camelbell_core.roles import GgufBase, TrainableBase
from camelbell_core.tokens import FileTokenizer
from camelbell_plugins.base_gguf.convert import write_folder, write_tokenizer
from camelbell_plugins.base_gguf.header import read_header
from camelbell_plugins.base_llamacpp import LlamaCpp
from camelbell_plugins.base_llamacpp.devices import has_cuda
from camelbell_plugins.base_llamacpp.lora import lora_file
from camelbell_plugins.base_llamacpp.model import LlamaModel


@dataclass
class Twins:
    """One tiny base twice: for transformers, and as a GGUF file."""

    torch: TrainableBase
    file: GgufBase


def make_twins(folder: Path, kind: str, quantisation: Any = F32, **changes: Any) -> Twins:
    model, words = original(kind, **changes)
    sources = randomise(model, quantisation)
    file = write_gguf(folder / "model.gguf", kind, model, sources, quantisation, words)
    header = read_header(file)
    (folder / "hub").mkdir()
    write_folder(header, file, folder / "hub")
    write_tokenizer(header.metadata, folder)
    tokenizer = AutoTokenizer.from_pretrained(str(folder / "hub"))
    return Twins(
        TrainableBase(name="tiny", model=model, tokenizer=tokenizer, fingerprint=f"{kind}-tiny"),
        GgufBase(
            name="tiny",
            file=file,
            tokenizer=lambda: FileTokenizer(folder),
            metadata=lambda: header.metadata,
            fingerprint=f"{kind}-tiny",
        ),
    )


@pytest.fixture(params=["llama", "gemma3"])
def twins(request: pytest.FixtureRequest, tmp_path: Path) -> Twins:
    """A tiny base of each kind."""
    return make_twins(tmp_path, request.param)


def make_adapter(base: TrainableBase, folder: Path, seed: int = 1, **options: Any) -> Path:
    """Save a random adapter of every projection, with its fingerprint; the base stays as it is."""
    torch.manual_seed(seed)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = LoraConfig(**{"r": 4, "lora_alpha": 12, "target_modules": targets, "task_type": "CAUSAL_LM", **options})
    with peft_warnings():
        tuned = get_peft_model(copy.deepcopy(base.model), config)
    for name, parameter in tuned.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn_like(parameter) * 0.3
    tuned.save_pretrained(str(folder))
    layout = TorchModel(base).layout
    write_fingerprint(folder, base, layout, tuned.eval(), {})
    return folder


def torch_first(model: Any, prompt: Prompt) -> torch.Tensor:
    with torch.inference_mode():
        ids = torch.tensor([model.layout.prefix(prompt)])
        return model.model(input_ids=ids).logits[0, -1].float().log_softmax(-1)


def open_llama(twins: Twins, *adapters: Path | None, **options: Any) -> list[LlamaModel]:
    return LlamaCpp(**options).load_several(twins.file, adapters or [None])  # type: ignore[return-value]


def assert_alike(model: LlamaModel, reference: Any, prompt: Prompt) -> None:
    """Compare the logarithms of the probabilities of the likeliest first tokens; llama.cpp keeps states in float16."""
    expected = torch_first(reference, prompt)
    found = dict(model.first_tokens(prompt))
    assert len(found) == 20
    assert max(found, key=lambda token: found[token]) == int(expected.argmax())
    for token, value in found.items():
        assert value == pytest.approx(float(expected[token]), abs=0.1)


# --- agreement with transformers ------------------------------------------------------------------


@pytest.mark.parametrize("language", PROMPTS)
def test_the_bare_base_gives_the_same_probabilities(twins: Twins, language: str) -> None:
    (model,) = open_llama(twins)
    assert model.layout.prefix(PROMPTS[language]) == TorchModel(twins.torch).layout.prefix(PROMPTS[language])
    assert_alike(model, TorchModel(twins.torch), PROMPTS[language])


@pytest.mark.parametrize("language", PROMPTS)
def test_an_adapter_changes_them_as_peft_does(twins: Twins, language: str, tmp_path: Path) -> None:
    adapter = make_adapter(twins.torch, tmp_path / "adapter")
    (model,) = open_llama(twins, adapter)
    bare = torch_first(TorchModel(make_twins_again(twins)), PROMPTS[language])
    tuned = TorchModel(twins.torch, adapter)
    assert (torch_first(tuned, PROMPTS[language]) - bare).abs().max() > 1  # far more than the tolerance
    assert_alike(model, tuned, PROMPTS[language])
    assert model.adapter == str(adapter)


@pytest.mark.parametrize(
    "options",
    [
        {"use_rslora": True},
        {"alpha_pattern": {"q_proj": 32, "layers.1.mlp.up_proj": 3}, "rank_pattern": {"k_proj": 2}},
        {"target_modules": ["q_proj", "k_proj"]},
    ],
    ids=["rslora", "patterns", "two"],
)
def test_each_weight_keeps_its_own_scale(twins: Twins, options: dict[str, Any], tmp_path: Path) -> None:
    adapter = make_adapter(twins.torch, tmp_path / "adapter", **options)
    (model,) = open_llama(twins, adapter)
    assert_alike(model, TorchModel(twins.torch, adapter), ZH)


@pytest.mark.parametrize("language", PROMPTS)
def test_a_greedy_reply_is_the_same_text(twins: Twins, language: str, tmp_path: Path) -> None:
    adapter = make_adapter(twins.torch, tmp_path / "adapter")
    (model,) = open_llama(twins, adapter)
    reference = "".join(TorchModel(twins.torch, adapter).stream(PROMPTS[language], 8))
    said = "".join(model.stream(PROMPTS[language], 8))
    # A random model says half characters, which llama.cpp may leave out.
    told, expected = (text.replace("\ufffd", "").split("\n")[0].strip() for text in (said, reference))
    assert told == expected


# --- adapters -------------------------------------------------------------------------------------


def test_one_base_serves_several_adapters_and_none(twins: Twins, tmp_path: Path) -> None:
    adapters = [make_adapter(twins.torch, tmp_path / f"adapter{seed}", seed) for seed in (1, 2)]
    first, bare, second = open_llama(twins, adapters[0], None, adapters[1])
    assert first._server is bare._server is second._server
    references = [TorchModel(make_twins_again(twins), a) for a in adapters]
    for _ in range(2):  # in turns, so that no state of another adapter's prompt is taken up
        assert_alike(first, references[0], EN)
        assert_alike(second, references[1], EN)
        assert_alike(bare, TorchModel(twins.torch), EN)


def make_twins_again(twins: Twins) -> TrainableBase:
    """Return the base for transformers with a model of its own: PEFT writes into the one that it is given."""
    return replace(twins.torch, model=copy.deepcopy(twins.torch.model))


def test_the_file_is_written_once_for_the_same_adapter_and_base(twins: Twins, tmp_path: Path, own_home: Path) -> None:
    adapter = make_adapter(twins.torch, tmp_path / "adapter")
    file = lora_file(adapter, twins.file)
    assert file.is_relative_to(own_home)
    written = file.stat().st_mtime_ns
    assert lora_file(adapter, twins.file) == file
    assert file.stat().st_mtime_ns == written
    other = make_adapter(twins.torch, tmp_path / "other", seed=2)
    assert lora_file(other, twins.file) != file
    assert lora_file(adapter, replace(twins.file, fingerprint="another base")) != file
    assert sorted(path.name for path in file.parent.iterdir() if path.is_dir()) == []  # no draft is left


def spoil(adapter: Path, how: str) -> None:
    """Make an adapter that llama.cpp cannot run."""
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    weights = adapter / "adapter_model.safetensors"
    if how == "zero":
        tensors = {name: value * (".lora_A." in name) for name, value in load_file(weights).items()}
        save_file(tensors, weights)
    elif how == "nan":
        save_file({name: value * float("nan") for name, value in load_file(weights).items()}, weights)
    elif how == "torn":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif how == "half":
        tensors = load_file(weights)
        save_file({name: value for name, value in tensors.items() if ".lora_B." not in name}, weights)
    elif how == "gone":
        weights.unlink()
    else:
        config[how] = True
    (adapter / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("use_dora", "cannot be run by llama.cpp: it uses use_dora"),
        ("modules_to_save", "cannot be run by llama.cpp: it uses modules_to_save"),
        ("zero", "changes no logit of 'tiny'"),
        ("nan", "holds what is not a number"),
        ("torn", "its weights are damaged"),
        ("half", "lacks its second matrix"),
        ("gone", "has no adapter_model.safetensors"),
    ],
)
def test_an_adapter_that_cannot_be_run_is_an_error_that_says_why(tmp_path: Path, how: str, message: str) -> None:
    twins = make_twins(tmp_path, "llama")
    adapter = make_adapter(twins.torch, tmp_path / "adapter")
    spoil(adapter, how)
    with pytest.raises(ModelMismatch) as caught:
        open_llama(twins, adapter)
    assert message in caught.value.message
    assert caught.value.hint


def test_an_adapter_of_another_base_is_refused(twins: Twins, tmp_path: Path) -> None:
    adapter = make_adapter(twins.torch, tmp_path / "adapter")
    with pytest.raises(ModelMismatch) as caught:
        open_llama(replace(twins, file=replace(twins.file, fingerprint="another")), adapter)
    assert caught.value.message.startswith(f"the adapter {str(adapter)!r} was trained on another base model")


def test_a_file_that_llama_cpp_cannot_load_is_one_line(tmp_path: Path) -> None:
    twins = make_twins(tmp_path, "llama")
    twins.file.file.write_bytes(twins.file.file.read_bytes()[:5000])
    (model,) = open_llama(twins)
    with pytest.raises(CamelBellError) as caught:
        list(model.stream(ZH, 4))
    assert caught.value.message == f"llama.cpp cannot load {twins.file.file}"


# --- the stream -----------------------------------------------------------------------------------


@pytest.fixture
def talker(tmp_path: Path) -> LlamaModel:
    """A tiny model that says something."""
    (model,) = open_llama(make_twins(tmp_path, "gemma3"))
    return model


def test_a_seed_repeats_a_reply_and_another_one_does_not(talker: LlamaModel) -> None:
    def say(seed: int) -> str:
        return "".join(talker.with_sampling(seed=seed, top_p=1.0, top_k=0).stream(ZH, 24, temperature=1.5))

    assert say(1) == say(1)
    assert len({say(seed) for seed in range(1, 6)}) > 1
    assert "".join(talker.stream(ZH, 24)) == "".join(talker.stream(ZH, 24))  # greedy needs none


def test_the_nucleus_bounds_what_is_said(talker: LlamaModel) -> None:
    greedy = "".join(talker.stream(EN, 12))
    narrow = talker.with_sampling(top_p=1e-6, seed=3)
    assert "".join(narrow.stream(EN, 12, temperature=2.0)) == greedy
    single = talker.with_sampling(top_k=1, seed=3)
    assert "".join(single.stream(EN, 12, temperature=2.0)) == greedy


def test_repetition_is_made_less_likely(talker: LlamaModel) -> None:
    plain = "".join(talker.stream(EN, 40))
    varied = "".join(talker.with_sampling(repetition=1.8).stream(EN, 40))
    assert varied != plain


def test_a_reply_stops_when_it_is_told_to(talker: LlamaModel) -> None:
    stop = threading.Event()
    pieces = []
    for piece in talker.stream(ZH, 3000, stop=stop.is_set):
        pieces.append(piece)
        if len(pieces) == 3:
            threading.Thread(target=stop.set).start()
    assert stop.is_set()
    assert 3 <= len(pieces) < 2000
    assert "".join(talker.stream(ZH, 4)) == "".join(talker.stream(ZH, 4))  # and the next one is made


def test_who_leaves_a_reply_leaves_no_one_waiting(talker: LlamaModel) -> None:
    stream = talker.stream(ZH, 3000)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert talker._server._busy == 0
    assert "".join(talker.stream(EN, 4)) == "".join(talker.stream(EN, 4))


def test_a_request_that_waits_for_its_turn_can_be_stopped(talker: LlamaModel) -> None:
    first = talker.stream(ZH, 3000)
    next(first)
    assert list(talker.stream(EN, 4, stop=lambda: True)) == []
    first.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("parallel", [1, 3])
def test_several_conversations_say_the_same_as_one_alone(tmp_path: Path, parallel: int) -> None:
    twins = make_twins(tmp_path, "gemma3")
    adapters = [None, make_adapter(twins.torch, tmp_path / "adapter")]
    models = open_llama(twins, *adapters, parallel=parallel, context=512)
    assert models[0].parallel == parallel
    alone = [["".join(model.stream(prompt, 8)) for prompt in (ZH, EN)] for model in models]
    found: dict[tuple[int, int], str] = {}

    def talk(m: int, p: int) -> None:
        found[m, p] = "".join(models[m].stream((ZH, EN)[p], 8))

    threads = [threading.Thread(target=talk, args=(m, p)) for m in (0, 1) for p in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {(m, p): alone[m][p] for m in (0, 1) for p in (0, 1)}


def test_what_a_prompt_has_in_common_with_the_last_one_is_not_read_again(talker: LlamaModel) -> None:
    def cached(prompt: Prompt) -> tuple[int, int]:
        request = {"prompt": talker.layout.prefix(prompt), "n_predict": 1, "temperature": 0.0}
        *_, last = talker._server.complete(request, None, lambda: False)
        return last["timings"]["cache_n"], len(request["prompt"])

    assert cached(ZH)[0] == 0
    again, length = cached(replace(ZH, question=ZH.question + "？？"))
    assert again > length // 2
    assert 0 < cached(replace(ZH, facts=("另一件事。",), history=()))[0] < again  # the persona's part


def test_a_prompt_longer_than_the_window_is_cut_not_refused(tmp_path: Path) -> None:
    (model,) = open_llama(make_twins(tmp_path, "gemma3"), context=256)
    assert list(model.stream(replace(ZH, question="你好" * 4000), 16)) is not None


def test_a_new_adapter_joins_a_base_that_runs(tmp_path: Path) -> None:
    twins = make_twins(tmp_path, "llama")
    (bare,) = open_llama(twins)
    before = "".join(bare.stream(EN, 6))
    adapter = make_adapter(twins.torch, tmp_path / "adapter")
    (tuned,) = open_llama(twins, adapter)
    assert tuned._server is bare._server
    assert_alike(tuned, TorchModel(twins.torch, adapter), EN)
    assert "".join(bare.stream(EN, 6)) == before


# --- the process ----------------------------------------------------------------------------------

PROGRAM = """
import os, signal, sys, threading
from pathlib import Path
from camelbell_plugins.base_llamacpp.server import shared
server = shared(Path(sys.argv[1]), 1, 256, 1)
request = {"prompt": [2, 270, 271], "n_predict": 4, "temperature": 0.0}
print(len(list(server.complete(request, None, lambda: False))) > 0)
print(server._native.listening_address.startswith("unix://"), Path(server._native.listening_address[7:]).exists())
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    threading.Event().wait(20)
except KeyboardInterrupt:
    print("interrupted")
print(*sorted({"torch", "transformers", "peft"} & set(sys.modules)))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has neither these signals nor sockets in folders")
def test_ctrl_c_stays_pythons_and_no_door_is_open(tmp_path: Path) -> None:
    file = make_twins(tmp_path, "gemma3").file.file
    done = subprocess.run([sys.executable, "-c", PROGRAM, file], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\nTrue False\ninterrupted\n\n", "")


def test_a_base_that_nobody_holds_leaves_the_memory(tmp_path: Path) -> None:
    twins = make_twins(tmp_path, "llama")
    (model,) = open_llama(twins)
    list(model.stream(EN, 2))
    server = weakref.ref(model._server)
    del model
    gc.collect()
    assert server() is None


CHAT = """
import sys
from camelbell_core import cli
sys.argv = ["camelbell", "chat", "harry_potter", "--message", sys.argv[1]]
try:
    cli.main()
finally:
    print(*sorted({"torch", "transformers", "peft"} & set(sys.modules)), file=sys.stderr)
"""


@pytest.mark.real_base
@pytest.mark.skipif(has_cuda(), reason="transformers talks where there is a GPU")
@pytest.mark.parametrize("question", ["你的教父是谁？", "Who is your godfather?"])
def test_a_chat_imports_neither_torch_nor_transformers(
    real_home: Path, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    monkeypatch.setenv("CAMELBELL_HOME", str(real_home))
    for _ in range(2):  # neither at the first start, nor at any other
        done = subprocess.run(
            [sys.executable, "-c", CHAT, question], capture_output=True, encoding="utf-8", timeout=600
        )
        assert done.stderr.splitlines()[-1] == ""
        assert "小天狼星" in done.stdout or "Sirius" in done.stdout
