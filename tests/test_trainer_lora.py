"""trainer_lora: examples to batches, the chunked loss, the loop with its checkpoints, and what is saved."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from chatglm_tiny import tiny_chatglm
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from tiny_base import EN, PROMPTS, TEMPLATES, ZH, open_base, save_base, tiny_model, tiny_tokenizer
from torch.nn import functional
from transformers import AutoModelForCausalLM

from camelbell_core.adapters import attach, probe
from camelbell_core.errors import CamelBellError
from camelbell_core.prompts import Prompt, layout_for
from camelbell_core.registry import build_registry
from camelbell_core.roles import TrainableBase, Trainer, TrainingJob
from camelbell_plugins.trainer_lora import LoraTrainer
from camelbell_plugins.trainer_lora.batches import (
    Example,
    bucket_lengths,
    collate,
    encode,
    epoch_batches,
    padded_length,
)
from camelbell_plugins.trainer_lora.fused import fused
from camelbell_plugins.trainer_lora.loss import _ChunkedCrossEntropy, answer_loss

# peft 0.21 asks transformers 5.23 by the old name of a property.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

EXAMPLES = [
    *((Prompt("zh", "我是哈利。", f"{i}加{i}是几？", ("住在女贞路。",)), f"是{2 * i}，世界。") for i in range(10)),
    *((Prompt("en", "I am Harry.", f"What is {i} plus {i}?"), f"It is {2 * i}, world.") for i in range(10)),
]
FOLDER = [
    "README.md",
    "adapter_config.json",
    "adapter_model.safetensors",
    "camelbell.json",
    "loss.jsonl",
    "loss.png",
    "report.json",
]
OPTIONS: dict[str, Any] = {"r": 4, "epochs": 3, "learning_rate": 5e-3, "batch_tokens": 300, "checkpoint_every": 3}


def make_job(base: TrainableBase, output: Path, **changes: Any) -> TrainingJob:
    """Return the job that most tests run."""
    known: dict[str, Any] = {
        "character": "harry",
        "examples": EXAMPLES,
        "base": base,
        "layout": layout_for(base.tokenizer),
        "output": output,
        "seed": "0:harry:train",
        "describe": {"title": "哈利·波特 Harry", "languages": ["zh", "en"]},
    }
    return TrainingJob(**{**known, **changes})


def losses(folder: Path) -> list[tuple[int, float]]:
    """Return step and loss of each line of loss.jsonl."""
    rows = [json.loads(line) for line in (folder / "loss.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(row["step"], row["loss"]) for row in rows]


def as_json(value: object) -> Any:
    """Return a value as it comes back from a JSON file."""
    return json.loads(json.dumps(value))


# --- examples and batches -------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", [ZH, EN], ids=["zh", "en"])
@pytest.mark.parametrize("kind", list(TEMPLATES))
def test_a_prompt_too_long_is_cut_from_history_and_facts_and_counted(kind: str, prompt: Prompt) -> None:
    layout = layout_for(tiny_tokenizer(TEMPLATES[kind]))
    answer = layout.answer("好 yes", prompt.language)
    bare = layout.prefix(replace(prompt, history=(), facts=()))
    one_fact = layout.prefix(replace(prompt, history=(), facts=prompt.facts[1:]))
    whole = layout.prefix(prompt)

    def encoded(room: int) -> tuple[list[Example], dict[str, int]]:
        return encode([(prompt, "好 yes")], layout, room + len(answer))

    def as_example(prefix: list[int]) -> list[Example]:
        return [Example([*prefix, *answer], len(prefix), 1)]

    assert encoded(len(whole)) == (as_example(whole), {"examples": 1, "cut": 0, "too_long": 0})
    assert encoded(len(one_fact)) == (as_example(one_fact), {"examples": 1, "cut": 1, "too_long": 0})
    assert encoded(len(bare)) == (as_example(bare), {"examples": 1, "cut": 1, "too_long": 0})
    assert encoded(len(bare) - 1) == ([], {"examples": 0, "cut": 0, "too_long": 1})


@pytest.mark.parametrize("long", ["为什么？" * 300, "why? " * 300])
def test_an_answer_that_does_not_fit_is_left_out_never_cut(long: str) -> None:
    layout = layout_for(tiny_tokenizer())
    examples = [(ZH, "好。"), (EN, long), (EN, "Yes.")]
    encoded, counts = encode(examples, layout, 200)
    assert counts == {"examples": 2, "cut": 0, "too_long": 1}
    assert [example.number for example in encoded] == [1, 3]
    assert [example.ids[example.prefix :] for example in encoded] == [
        layout.answer("好。", "zh"),
        layout.answer("Yes.", "en"),
    ]


def test_no_examples_are_no_batches() -> None:
    assert encode([], layout_for(tiny_tokenizer()), 100) == ([], {"examples": 0, "cut": 0, "too_long": 0})
    assert epoch_batches([], 100, "seed") == []


@settings(deadline=None)
@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 200), st.text(max_size=3))
def test_every_example_comes_once_an_epoch_and_a_batch_keeps_the_token_budget(
    lengths: list[int], budget: int, seed: str
) -> None:
    examples = [Example([7] * length, 0) for length in lengths]
    batches = epoch_batches(examples, budget, seed)
    assert sorted(i for batch in batches for i in batch) == list(range(len(examples)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget
    assert batches == epoch_batches(examples, budget, seed)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=30), st.integers(1, 4))
def test_buckets_hold_every_length_with_the_least_padding(lengths: list[int], most: int) -> None:
    buckets = bucket_lengths(lengths, most)
    assert 1 <= len(buckets) <= most
    assert all(end % 8 == 0 for end in buckets) and buckets[-1] >= max(lengths)
    tokens = sum(padded_length(length, buckets) for length in lengths)
    ends = sorted({-(-length // 8) * 8 for length in lengths})
    for others in combinations(ends, min(most, len(ends))):
        if others[-1] >= max(lengths):
            assert tokens <= sum(padded_length(length, others) for length in lengths)
    examples = [Example([7] * length, 0) for length in lengths]
    batches = epoch_batches(examples, 128, "seed", buckets)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        (width,) = {padded_length(lengths[i], buckets) for i in batch}
        assert len(batch) == 1 or len(batch) * width <= 128


def test_no_lengths_are_no_buckets() -> None:
    assert bucket_lengths([], 4) == []


def test_each_epoch_has_an_order_of_its_own() -> None:
    examples = [Example([7] * 10, 0) for _ in range(40)]
    orders = {str(epoch_batches(examples, 40, f"seed:{epoch}")) for epoch in range(4)}
    assert len(orders) == 4
    assert all(len(batch) == 4 for batch in epoch_batches(examples, 40, "seed:0"))


def test_a_batch_is_padded_on_the_right_and_only_answers_are_labelled() -> None:
    batch = collate([Example([5, 6, 7, 8], 2), Example([9, 4], 1)], 0, "cpu")
    assert {name: rows.tolist() for name, rows in batch.items()} == {
        "input_ids": [[5, 6, 7, 8], [9, 4, 0, 0]],
        "places": [1, 2, 4],
        "targets": [7, 8, 4],
    }


# --- the loss -------------------------------------------------------------------------------------


@pytest.mark.parametrize("softcap", [0.0, 2.0])
@pytest.mark.parametrize("positions", [1, 63, 64, 65, 200])
def test_the_chunked_loss_and_its_gradient_are_torchs(positions: int, softcap: float) -> None:
    torch.manual_seed(positions)
    hidden = torch.randn(positions, 16, requires_grad=True)
    weight, targets = torch.randn(50, 16), torch.randint(50, (positions,))
    loss: torch.Tensor = _ChunkedCrossEntropy.apply(hidden, weight, targets, softcap)
    (loss / 3).backward()
    made, hidden.grad = hidden.grad, None

    logits = hidden @ weight.T
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    expected = functional.cross_entropy(logits, targets, reduction="sum")
    (expected / 3).backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(made, hidden.grad, rtol=1e-4, atol=1e-6)


def granite(vocabulary: int) -> Any:
    """Return a model whose logits are divided by a number of its configuration."""
    from transformers import GraniteConfig, GraniteForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return GraniteForCausalLM(GraniteConfig(vocab_size=vocabulary, num_key_value_heads=2, logits_scaling=4.0, **sizes))


def cohere(vocabulary: int) -> Any:
    """Return a model whose logits are multiplied by a number of its configuration."""
    from transformers import CohereConfig, CohereForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return CohereForCausalLM(CohereConfig(vocab_size=vocabulary, num_key_value_heads=2, logit_scale=0.25, **sizes))


def phi(vocabulary: int) -> Any:
    """Return a model whose output layer has a bias, here one that matters."""
    from transformers import PhiConfig, PhiForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = PhiForCausalLM(PhiConfig(vocab_size=vocabulary, **sizes))
    torch.nn.init.normal_(model.lm_head.bias)
    return model


MODELS: dict[str, Callable[[int], Any]] = {
    "llama": lambda vocabulary: tiny_model("llama", vocabulary),
    "gemma3": lambda vocabulary: tiny_model("gemma3", vocabulary),
    "gemma3 with softcap": lambda vocabulary: tiny_model("gemma3", vocabulary, final_logit_softcapping=0.5),
    "granite": granite,
    "cohere": cohere,
    "phi": phi,
}


@pytest.mark.parametrize("name", list(MODELS))
def test_the_answer_loss_and_its_gradients_are_those_of_the_models_own_logits(name: str) -> None:
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    model = MODELS[name](len(tokenizer))
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    tuned = get_peft_model(model, config)
    answers = ["是的，我在霍格沃茨。" * 4, "Yes, I go to school."]
    examples, _ = encode(list(zip((ZH, EN), answers, strict=True)), layout_for(tokenizer), 400)
    batch = collate(examples, tokenizer.pad_token_id, "cpu")

    def gradients() -> dict[str, torch.Tensor]:
        found = {n: p.grad.clone() for n, p in tuned.named_parameters() if p.grad is not None}
        tuned.zero_grad()
        return found

    loss, count = answer_loss(tuned, batch)
    loss.backward()
    made = gradients()
    labels = torch.full_like(batch["input_ids"], -100)
    for row, example in enumerate(examples):
        labels[row, example.prefix : len(example.ids)] = torch.tensor(example.ids[example.prefix :])
    logits = tuned(input_ids=batch["input_ids"], attention_mask=(batch["input_ids"] != 0).long()).logits
    expected = functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
    expected.backward()
    assert count == sum(len(example.ids) - example.prefix for example in examples) > 64
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(made, gradients(), rtol=1e-4, atol=1e-5)
    assert len(made) == 8


def test_the_loss_is_taken_on_answer_tokens_only() -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_model("llama", len(tokenizer))
    (example,), _ = encode([(EN, "Yes, world.")], layout_for(tokenizer), 400)
    with torch.no_grad():
        logits = model(torch.tensor([example.ids])).logits[0].log_softmax(-1)
        by_hand = -sum(float(logits[i - 1, example.ids[i]]) for i in range(example.prefix, len(example.ids)))
        loss, count = answer_loss(model, collate([example], 0, "cpu"))
    assert float(loss) == pytest.approx(by_hand, rel=1e-5)
    assert count == len(example.ids) - example.prefix


def test_padding_changes_no_loss() -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_model("gemma3", len(tokenizer))
    examples, _ = encode([(ZH, "好。"), (EN, "Yes, I go to school at Hogwarts.")], layout_for(tokenizer), 400)
    with torch.no_grad():
        alone = [answer_loss(model, collate([example], 0, "cpu")) for example in examples]
        together = answer_loss(model, collate(examples, 0, "cpu"))
    assert float(together[0]) == pytest.approx(sum(float(loss) for loss, _ in alone), rel=1e-5)
    assert together[1] == sum(count for _, count in alone)


def some_base(kind: str, tokenizer: Any) -> Any:
    """Return a tiny model of a kind, in whose own layout the tokenizer's ids stand."""
    if kind != "chatglm":
        return tiny_model(kind, len(tokenizer))
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "gmask_token_id": 3, "mask_token_id": 9}
    return tiny_chatglm(len(tokenizer), ids, initializer_range=0.2)


def marked(examples: list[Example]) -> list[Example]:
    """Return examples with ChatGLM's [gMASK] <sop> at the end of their prompts, here 3 and 1."""
    made = []
    for e in examples:
        ids = [n for n in e.ids if n not in (1, 3)]
        prefix = e.prefix - sum(n in (1, 3) for n in e.ids[: e.prefix])
        made.append(Example([*ids[:prefix], 3, 1, *ids[prefix:]], prefix + 2))
    return made


@pytest.mark.parametrize("kind", ["llama", "gemma3", "chatglm"])
def test_examples_of_a_batch_do_not_touch_each_other(kind: str) -> None:
    tokenizer = tiny_tokenizer()
    tuned = get_peft_model(some_base(kind, tokenizer), LoraConfig(r=4, target_modules=TARGETS, init_lora_weights=False))
    pairs = [(ZH, "好。"), (EN, "Yes, I go to school at Hogwarts."), (EN, "No.")]
    examples = marked(encode(pairs, layout_for(tokenizer), 400)[0])

    def gradients(batches: list[list[Example]]) -> tuple[float, dict[str, torch.Tensor]]:
        tuned.zero_grad()
        total = 0.0
        for batch in batches:
            loss, _ = answer_loss(tuned, collate(batch, 0, "cpu"))
            loss.backward()
            total += float(loss.detach())
        return total, {n: p.grad.clone() for n, p in tuned.named_parameters() if p.grad is not None}

    together, alone = gradients([examples]), gradients([[example] for example in examples])
    assert together[0] == pytest.approx(alone[0], rel=1e-5)
    torch.testing.assert_close(together[1], alone[1], rtol=1e-3, atol=1e-4)


TARGETS = ["q_proj", "v_proj", "down_proj", "query_key_value", "dense_4h_to_h"]


@pytest.mark.parametrize("kind", ["llama", "gemma3", "chatglm"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_layers_give_the_loss_and_gradients_of_pefts(kind: str, dtype: torch.dtype) -> None:
    tokenizer = tiny_tokenizer()
    model = some_base(kind, tokenizer).to(dtype)
    tuned = get_peft_model(model, LoraConfig(r=4, target_modules=TARGETS, init_lora_weights=False))
    batch = collate(marked(encode([(ZH, "好。"), (EN, "Yes, I do.")], layout_for(tokenizer), 400)[0]), 0, "cpu")

    def gradients() -> tuple[torch.Tensor, torch.Tensor]:
        tuned.zero_grad()
        loss, _ = answer_loss(tuned, batch)
        loss.backward()
        found = [p.grad.flatten() for p in tuned.parameters() if p.grad is not None]
        assert all(grad.dtype == torch.float32 for grad in found)
        return loss.detach(), torch.cat(found)

    expected = gradients()
    classes = [type(module) for module in tuned.modules()]
    with fused(tuned) as whole:
        assert whole
        made = gradients()
    assert [type(module) for module in tuned.modules()] == classes
    torch.testing.assert_close(made[0], expected[0], rtol=1e-5 if dtype == torch.float32 else 2e-2, atol=0)
    alike = functional.cosine_similarity(made[1], expected[1], dim=0)
    assert alike > (1 - 1e-6 if dtype == torch.float32 else 0.99)


def test_layers_with_dropout_are_left_to_peft() -> None:
    config = LoraConfig(r=4, target_modules=["q_proj"], lora_dropout=0.1)
    with fused(get_peft_model(tiny_model("llama", 100), config)) as whole:
        assert not whole


# --- training -------------------------------------------------------------------------------------


@pytest.fixture(params=["llama-plain", "gemma3-strict"])
def base_folder(request: pytest.FixtureRequest, tiny_bases: dict[str, Path]) -> Path:
    """A plain Llama and a Gemma with a chat template."""
    return tiny_bases[request.param]


def test_training_lowers_the_loss_and_saves_a_plain_peft_folder(base_folder: Path, tmp_path: Path) -> None:
    ticks: list[tuple[int, int, str]] = []
    job = make_job(open_base(base_folder), tmp_path / "out", progress=lambda *tick: ticks.append(tick))
    report = LoraTrainer(**{**OPTIONS, "epochs": 10, "held_out": 0.1}).train(job)

    curve = losses(job.output)
    assert [step for step, _ in curve] == list(range(1, report["steps"] + 1))
    assert curve[-1][1] < curve[0][1] - 0.3
    assert [tick[:2] for tick in ticks] == [(step, report["steps"]) for step in range(report["steps"] + 1)]
    assert sorted(file.name for file in job.output.iterdir()) == FOLDER

    assert json.loads((job.output / "report.json").read_text(encoding="utf-8")) == as_json(report)
    counts = {key: report[key] for key in ("base", "examples", "cut", "too_long", "held_out", "resumed_at", "device")}
    assert counts == {
        "base": str(base_folder),
        "examples": 20,
        "cut": 0,
        "too_long": 0,
        "held_out": 2,
        "resumed_at": 0,
        "device": "cpu",
    }
    assert report["dtype"] == "float32"
    assert 0 < report["held_out_loss"] < curve[0][1]
    assert report["trainable_parameters"] == sum(
        tensor.numel() for tensor in load_file(job.output / "adapter_model.safetensors").values()
    )

    opened = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base_folder), job.output)
    assert opened.peft_config["default"].base_model_name_or_path == str(base_folder)
    png = (job.output / "loss.png").read_bytes()
    assert png.startswith(b"\x89PNG\r\n") and len(png) > 5000


def test_the_model_card_says_what_was_trained_on_what(tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    base = replace(open_base(tiny_bases["llama-plain"]), name="org/tiny", license="gemma")
    report = LoraTrainer(**OPTIONS).train(make_job(base, tmp_path))
    _, front, body = (tmp_path / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "peft",
        "base_model": "org/tiny",
        "base_model_relation": "adapter",
        "license": "gemma",
        "language": ["zh", "en"],
        "pipeline_tag": "text-generation",
        "tags": ["lora", "role-play", "camelbell"],
    }
    assert body.startswith("\n# 哈利·波特 Harry on org/tiny\n")
    assert f"- examples: 20 (0 held out), 3 epochs, {report['steps']} steps\n" in body
    assert f"- last loss {losses(tmp_path)[-1][1]:.3f} nats a token\n" in body
    assert "![training loss](loss.png)\n" in body
    assert "Gemma Terms of Use" in body


def test_the_fingerprint_names_base_tokenizer_and_layout(tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    base = open_base(tiny_bases["llama-plain"])
    job = make_job(base, tmp_path)
    LoraTrainer(**OPTIONS).train(job)
    saved = json.loads((tmp_path / "camelbell.json").read_text(encoding="utf-8"))
    logits, seen = probe(base.model, job.layout)
    assert saved["probe"] == seen
    assert [token for token, _ in seen["first_tokens"]] == logits.topk(8).indices.tolist()
    assert {key: saved[key] for key in ("base", "base_sha256", "layout", "layout_sha256", "character", "license")} == {
        "base": base.name,
        "base_sha256": base.fingerprint,
        "layout": "plain",
        "layout_sha256": job.layout.digest(),
        "character": "harry",
        "license": "",
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_trained_and_the_reopened_model_give_the_same_logits(
    base_folder: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    def opened() -> TrainableBase:
        base = open_base(base_folder)
        base.model.to(dtype)
        return base

    base, again = opened(), opened()
    untouched, _ = probe(again.model, layout_for(again.tokenizer))
    LoraTrainer(**OPTIONS).train(make_job(base, tmp_path))
    reopened = attach(again, layout_for(again.tokenizer), tmp_path)
    for language in ("zh", "en"):
        ids = torch.tensor([layout_for(base.tokenizer).prefix(PROMPTS[language])])
        with torch.inference_mode():
            assert torch.equal(base.model(ids).logits, reopened(ids).logits)
    assert not torch.equal(probe(reopened, layout_for(again.tokenizer))[0], untouched)


@pytest.mark.parametrize("name", ["embedded", "org/name"])
def test_training_asks_no_network(
    name: str, tiny_bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    look_up = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: asked.append(args) or look_up(*args, **more))
    base = replace(open_base(tiny_bases["llama-plain"]), name=name)
    LoraTrainer(**{**OPTIONS, "checkpoint_every": 1}).train(make_job(base, tmp_path))
    attach(open_base(tiny_bases["llama-plain"]), layout_for(base.tokenizer), tmp_path)
    assert asked == []


# --- going on after a kill ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tiny_bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a training left that nobody interrupted."""
    output = tmp_path_factory.mktemp("finished") / "out"
    LoraTrainer(**OPTIONS).train(make_job(open_base(tiny_bases["llama-plain"]), output))
    return output


def ends_at(step: int, error: type[BaseException] = KeyboardInterrupt) -> Callable[[int, int, str], None]:
    """Return a progress callback that raises after a step."""

    def tick(done: int, total: int, note: str) -> None:
        if done == step:
            raise error

    return tick


def close(curve: Sequence[tuple[int, float]]) -> Any:
    """Return losses to compare with to 1e-6."""
    return [(step, pytest.approx(loss, abs=1e-6)) for step, loss in curve]


def interrupted(folder: Path, output: Path, step: int, **options: Any) -> None:
    """Train up to a step."""
    job = make_job(open_base(folder), output, progress=ends_at(step))
    with pytest.raises(KeyboardInterrupt):
        LoraTrainer(**{**OPTIONS, **options}).train(job)


@pytest.mark.parametrize(("step", "resumed_at"), [(0, 0), (1, 0), (3, 0), (4, 3), (8, 6), (9, 6)])
def test_an_interrupted_training_goes_on_to_the_same_losses(
    step: int, resumed_at: int, finished: Path, tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    assert len(losses(finished)) > 9
    output = tmp_path / "out"
    interrupted(tiny_bases["llama-plain"], output, step)
    ticks: list[int] = []
    job = make_job(open_base(tiny_bases["llama-plain"]), output, progress=lambda done, *more: ticks.append(done))
    report = LoraTrainer(**OPTIONS).train(job)
    assert report["resumed_at"] == ticks[0] == resumed_at
    assert losses(output) == close(losses(finished))
    assert sorted(file.name for file in output.iterdir()) == FOLDER
    weights, expected = (load_file(folder / "adapter_model.safetensors") for folder in (output, finished))
    torch.testing.assert_close(weights, expected)


TRAIN = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_trainer_lora as t
job = t.make_job(t.open_base(Path(sys.argv[1])), Path(sys.argv[2]), progress=lambda *tick: print(*tick, flush=True))
t.LoraTrainer(**t.OPTIONS).train(job)
"""


def test_a_training_killed_by_the_system_goes_on_to_the_same_losses(
    finished: Path, tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    script = TRAIN.format(tests=str(Path(__file__).parent))
    command = [sys.executable, "-c", script, str(tiny_bases["llama-plain"]), str(output)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("5 "):
                process.kill()
                break
    assert process.returncode == -signal.SIGKILL
    assert not (output / "report.json").exists()
    report = LoraTrainer(**OPTIONS).train(make_job(open_base(tiny_bases["llama-plain"]), output))
    assert report["resumed_at"] in (3, 6)  # the kill may come after some steps more
    assert losses(output) == close(losses(finished))


def killed_before_the_swap(output: Path) -> None:
    shutil.copytree(output / "checkpoint", output / "checkpoint.new")
    (output / "checkpoint.new" / "step.json").unlink()


def killed_within_the_swap(output: Path) -> None:
    shutil.copytree(output / "checkpoint", output / "checkpoint.new")
    (output / "checkpoint").rename(output / "checkpoint.old")


def killed_after_the_swap(output: Path) -> None:
    (output / "checkpoint.old").mkdir()
    (output / "checkpoint.old" / "step.json").write_text("{", encoding="utf-8")


def killed_within_a_line(output: Path) -> None:
    with (output / "loss.jsonl").open("ab") as curve:
        curve.write(b'{"step": 9, "lo')


@pytest.mark.parametrize(
    "leave", [killed_before_the_swap, killed_within_the_swap, killed_after_the_swap, killed_within_a_line]
)
def test_what_a_kill_leaves_at_a_bad_moment_does_no_harm(
    leave: Callable[[Path], None], finished: Path, tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    interrupted(tiny_bases["llama-plain"], output, 8)
    leave(output)
    report = LoraTrainer(**OPTIONS).train(make_job(open_base(tiny_bases["llama-plain"]), output))
    assert report["resumed_at"] == 6
    assert losses(output) == close(losses(finished))
    assert sorted(file.name for file in output.iterdir()) == FOLDER


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", None])
def test_a_torn_checkpoint_is_not_used(
    damage: bytes | None, finished: Path, tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    interrupted(tiny_bases["llama-plain"], output, 4)
    state = output / "checkpoint" / "state.pt"
    state.write_bytes(state.read_bytes()[:3000] if damage is None else damage)
    report = LoraTrainer(**OPTIONS).train(make_job(open_base(tiny_bases["llama-plain"]), output))
    assert report["resumed_at"] == 0
    assert losses(output) == close(losses(finished))


def test_a_base_with_dropout_goes_on_to_the_same_losses_too(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_model("llama", len(tokenizer), attention_dropout=0.5)
    folder = save_base(tmp_path / "base", model, tokenizer)
    LoraTrainer(**OPTIONS).train(make_job(open_base(folder), tmp_path / "whole"))
    interrupted(folder, tmp_path / "out", 4)
    assert LoraTrainer(**OPTIONS).train(make_job(open_base(folder), tmp_path / "out"))["resumed_at"] == 3
    assert losses(tmp_path / "out") == close(losses(tmp_path / "whole"))


def test_the_checkpoint_of_another_job_is_not_gone_on_with(tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    interrupted(tiny_bases["llama-plain"], tmp_path, 4)
    job = make_job(open_base(tiny_bases["llama-plain"]), tmp_path, examples=EXAMPLES[1:])
    assert LoraTrainer(**OPTIONS).train(job)["resumed_at"] == 0


# --- the same job again ---------------------------------------------------------------------------


def test_the_same_job_again_is_not_trained_again(tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    first = LoraTrainer(**OPTIONS).train(make_job(open_base(tiny_bases["llama-plain"]), tmp_path))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    ticks: list[tuple[int, int, str]] = []
    job = make_job(open_base(tiny_bases["llama-plain"]), tmp_path, progress=lambda *tick: ticks.append(tick))
    assert LoraTrainer(**OPTIONS).train(job) == as_json(first)
    assert ticks == [(1, 1, "already trained on exactly this")]
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ({"epochs": 1}, {}),
        ({"r": 2}, {}),
        ({}, {"seed": "1:harry:train"}),
        ({}, {"examples": EXAMPLES[:-1]}),
        ({}, {"examples": [*EXAMPLES[:-1], (EXAMPLES[-1][0], "No.")]}),
        ({}, {"base": "gemma3-plain"}),
        ({}, {"base": "llama-chat"}),
    ],
)
def test_a_job_that_differs_is_trained(
    options: dict[str, Any], changes: dict[str, Any], tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    first = LoraTrainer(**OPTIONS).train(make_job(open_base(tiny_bases["llama-plain"]), tmp_path))
    changes = dict(changes)
    base = open_base(tiny_bases[changes.pop("base", "llama-plain")])
    second = LoraTrainer(**{**OPTIONS, **options}).train(make_job(base, tmp_path, **changes))
    assert first["identity"] != second["identity"]
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == as_json(second)
    assert len(losses(tmp_path)) == second["steps"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"identity": 1}'])
def test_a_job_whose_report_is_broken_is_trained_again(text: str, tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    options = {**OPTIONS, "epochs": 1}
    first = LoraTrainer(**options).train(make_job(open_base(tiny_bases["llama-plain"]), tmp_path))
    (tmp_path / "report.json").write_text(text, encoding="utf-8")
    second = LoraTrainer(**options).train(make_job(open_base(tiny_bases["llama-plain"]), tmp_path))
    assert second["identity"] == first["identity"]
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == as_json(second)


def test_a_job_whose_adapter_is_gone_is_trained_again(tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    LoraTrainer(**OPTIONS).train(make_job(open_base(tiny_bases["llama-plain"]), tmp_path))
    (tmp_path / "adapter_model.safetensors").unlink()
    LoraTrainer(**OPTIONS).train(make_job(open_base(tiny_bases["llama-plain"]), tmp_path))
    assert (tmp_path / "adapter_model.safetensors").is_file()


# --- where memory or time is short ----------------------------------------------------------------


def short_of_memory(model: Any, rows: int) -> Any:
    """Let a model say that memory is full for a batch of more than so many rows."""

    def check(module: Any, given: Any, named: Any) -> None:
        if named["input_ids"].shape[0] > rows:
            raise torch.OutOfMemoryError("CUDA out of memory")

    return model.get_decoder().register_forward_pre_hook(check, with_kwargs=True)


def test_a_batch_that_does_not_fit_into_memory_is_done_in_parts(
    finished: Path, tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    base = open_base(tiny_bases["llama-plain"])
    short_of_memory(base.model, 1)
    notes: list[str] = []
    job = make_job(base, tmp_path, progress=lambda done, total, note: notes.append(note))
    report = LoraTrainer(**OPTIONS).train(job)
    assert report["batch_parts"] >= 2
    assert f"not enough memory: batches are done in {report['batch_parts']} parts" in notes
    assert [step for step, _ in losses(tmp_path)] == [step for step, _ in losses(finished)]
    for (_, made), (_, expected) in zip(losses(tmp_path), losses(finished), strict=True):
        assert made == pytest.approx(expected, abs=1e-4)


def test_an_example_that_does_not_fit_into_memory_is_an_error_that_says_what_helps(
    tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    base = open_base(tiny_bases["llama-plain"])
    short_of_memory(base.model, 0)
    with pytest.raises(CamelBellError, match="not enough memory for an example of") as caught:
        LoraTrainer(**OPTIONS).train(make_job(base, tmp_path))
    assert caught.value.hint == "set recompute: true or quantize: 4bit, or lower max_length"


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_:FutureWarning")
@pytest.mark.parametrize(
    "options",
    [
        {"recompute": True},
        pytest.param(
            {"compile": True, "epochs": 1},
            marks=pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles with a C++ compiler"),
        ),
    ],
    ids=["recompute", "compile"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute:UserWarning")
def test_other_ways_to_compute_give_the_same_losses(
    options: dict[str, Any], tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    plain = {**OPTIONS, "epochs": options.get("epochs", OPTIONS["epochs"])}
    LoraTrainer(**plain).train(make_job(open_base(tiny_bases["llama-plain"]), tmp_path / "plain"))
    base = open_base(tiny_bases["llama-plain"])
    LoraTrainer(**{**OPTIONS, **options}).train(make_job(base, tmp_path / "other"))
    for (_, made), (_, expected) in zip(losses(tmp_path / "other"), losses(tmp_path / "plain"), strict=True):
        assert made == pytest.approx(expected, abs=1e-4)
    assert not base.model.is_gradient_checkpointing
    assert all(module._compiled_call_impl is None for module in base.model.modules())


# --- what goes wrong ------------------------------------------------------------------------------


def test_a_loss_that_is_not_a_number_stops_and_names_the_step(tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    ticks: list[int] = []
    base = open_base(tiny_bases["llama-plain"])
    job = make_job(base, tmp_path, examples=EXAMPLES[:3], progress=lambda done, *more: ticks.append(done))
    with pytest.raises(CamelBellError) as caught:
        LoraTrainer(**{**OPTIONS, "learning_rate": 1e30, "batch_tokens": 4096}).train(job)
    step = ticks[-1] + 1
    # The three examples have one length each, or share it: the batch holds them all, shortest first.
    assert caught.value.message.startswith(f"the loss is nan at step {step} (of the examples [")
    assert sorted(json.loads(caught.value.message.split("examples ")[1].rstrip(")"))) == [1, 2, 3]
    assert caught.value.hint == "lower learning_rate; the last checkpoint is kept"
    assert not (tmp_path / "adapter_config.json").exists()
    assert len(losses(tmp_path)) == step - 1


def test_no_example_that_fits_is_an_error_that_names_the_window(tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(CamelBellError) as caught:
        LoraTrainer(max_length=5).train(make_job(open_base(tiny_bases["llama-plain"]), tmp_path))
    assert (caught.value.message, caught.value.hint) == (
        "no example fits the window",
        "raise max_length, now 5 tokens",
    )
    with pytest.raises(CamelBellError, match="no example fits the window"):
        LoraTrainer().train(make_job(open_base(tiny_bases["llama-plain"]), tmp_path, examples=[]))


def test_one_example_is_enough(tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    job = make_job(open_base(tiny_bases["llama-plain"]), tmp_path, examples=EXAMPLES[:1])
    report = LoraTrainer(**{**OPTIONS, "held_out": 0.99}).train(job)
    assert (report["steps"], report["held_out"], report["held_out_loss"]) == (3, 0, None)


@pytest.mark.parametrize("targets", [("no_such_layer",), ("你好",)])
def test_layers_that_the_base_lacks_are_an_error_that_names_them(
    targets: tuple[str, ...], tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    base = open_base(tiny_bases["llama-plain"])
    with pytest.raises(CamelBellError) as caught:
        LoraTrainer(targets=targets).train(make_job(base, tmp_path))
    assert caught.value.message == f"{base.name} has no layers {targets[0]}"


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        *((name, 0, f"{name} must be 1 or more") for name in ("r", "alpha", "epochs", "batch_tokens", "max_length")),
        ("checkpoint_every", -1, "checkpoint_every must be 1 or more"),
        ("learning_rate", 0.0, "learning_rate must be more than 0"),
        ("learning_rate", nan, "learning_rate must be more than 0"),
        ("held_out", 1.0, "held_out must be 0 or more and less than 1"),
        ("held_out", -0.1, "held_out must be 0 or more and less than 1"),
        ("held_out", inf, "held_out must be 0 or more and less than 1"),
    ],
)
def test_an_option_that_makes_no_sense_is_told_before_any_work(option: str, value: float, message: str) -> None:
    with pytest.raises(CamelBellError) as caught:
        build_registry().build(Trainer, "trainers", {"lora": {option: value}})
    assert caught.value.message == f"trainers: lora: lora: {message}"


def test_the_yaml_chooses_the_trainer_and_its_options() -> None:
    made = build_registry().build(Trainer, "trainers", {"lora": {"r": 8, "targets": ["q_proj"]}}, {"epochs": 1})
    assert made == LoraTrainer(r=8, targets=("q_proj",), epochs=1)
