"""The kinds of bases that are known to run: each trains, saves, reloads and talks, in its own chat template."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from chatglm_tiny import chatglm_base
from safetensors.torch import load_file
from tiny_base import save_base, tiny_tokenizer
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    Glm4Config,
    Glm4ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from camelbell_core import evaluation, pipeline
from camelbell_core.character import Preset
from camelbell_core.journal import read_records
from camelbell_core.pipeline import Run
from camelbell_core.prompts import Prompt
from camelbell_core.records import Message, Pair
from camelbell_core.session import open_session

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 1024,
}
# The chat templates of the families, as far as plain turns go.
LLAMA = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
QWEN = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
GLM = (
    "[gMASK]<sop>{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
KINDS: dict[str, tuple[Any, Any, str, str]] = {
    "llama": (LlamaForCausalLM, LlamaConfig, LLAMA, "<|start_header_id|> <|end_header_id|> <|eot_id|>"),
    "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig, GEMMA, "<start_of_turn> <end_of_turn>"),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, QWEN, "<|im_start|> <|im_end|> <think> </think>"),
    "glm4": (Glm4ForCausalLM, Glm4Config, GLM, "[gMASK] <sop> <|system|> <|user|> <|assistant|> <|endoftext|>"),
}
# A persona P, a question, its answer, and another question; sentencepiece writes marks in ASCII.
LAID_OUT = {
    "llama": "<bos><|start_header_id|>system<|end_header_id|>\n\nP<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
    "Hello<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHi<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n你好<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "gemma3": "<bos><start_of_turn>user\nP\n\nHello<end_of_turn>\n<start_of_turn>model\nHi<end_of_turn>\n"
    "<start_of_turn>user\n你好<end_of_turn>\n<start_of_turn>model\n",
    "qwen3": "<|im_start|>system\nP<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi<|im_end|>\n"
    "<|im_start|>user\n你好<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    "glm4": "[gMASK]<sop><|system|>\nP<|user|>\nHello<|assistant|>\nHi<|user|>\n你好<|assistant|>\n",
    "chatglm": "[Round 0]\n问:P\n\nHello\n答:Hi\n[Round 1]\n问:你好\n答:",
}
ENDS = {"llama": "<|eot_id|>", "gemma3": "<eos>", "qwen3": "<|im_end|>", "glm4": "<|endoftext|>", "chatglm": "<eop>"}


def make_base(kind: str, folder: Path) -> Path:
    """Write a tiny random base of a kind, with a tokenizer that has its chat template and marks."""
    if kind == "chatglm":
        return chatglm_base(folder, hidden_size=64, inner_hidden_size=128, initializer_range=0.2)
    model, config, template, marks = KINDS[kind]
    tokenizer = tiny_tokenizer(template)
    tokenizer.add_special_tokens({"additional_special_tokens": marks.split()})
    tokenizer.eos_token = ENDS[kind]
    torch.manual_seed(0)
    ids = {"bos_token_id": 1, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0}
    return save_base(folder, model(config(vocab_size=len(tokenizer), **ids, **SIZES)).eval(), tokenizer)


@pytest.mark.parametrize("kind", ["chatglm", "llama", "gemma3", "qwen3", "glm4"])
def test_a_base_trains_saves_reloads_and_talks_in_its_own_template(
    kind: str, open_lumen: Callable[..., Run], tmp_path: Path
) -> None:
    base = str(make_base(kind, tmp_path / kind))
    run = open_lumen(base=base)
    pipeline.make_questions(run, 16)
    pipeline.make_answers(run, lambda: pytest.fail("the teacher needs no model"))
    pipeline.filter_pairs(run)
    options = {"epochs": 4, "learning_rate": 2e-2, "alpha": 64, "batch_tokens": 800, "held_out": 0.2}
    report = pipeline.train(run, base, Preset(questions=16, trainer=options))
    folder = pipeline.adapter_folder(run, base)
    rows = [json.loads(line) for line in (folder / "loss.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.1
    assert report["held_out_loss"] < rows[0]["loss"]
    tuned = {key.split(".lora_")[0].split(".")[-1] for key in load_file(folder / "adapter_model.safetensors")}
    wanted = {
        "chatglm": {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"},
        "glm4": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj"},
    }
    others = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert tuned == wanted.get(kind, others)

    speaker = pipeline.load_model(run, base, pipeline.find_adapter(run, base))
    assert speaker.adapter == str(folder)
    layout = speaker.layout
    assert layout.name == "template"
    session = open_session(run.character, run.registry, speaker)
    for question in ("你是谁？", "Who are you?"):
        assert session.ask(question)
    prompt = Prompt("zh", "P", "你好", history=(Message("user", "Hello"), Message("assistant", "Hi")))
    text = speaker.tokenizer.decode(layout.prefix(prompt), skip_special_tokens=False)
    assert text.replace("\n\n", "\n") == LAID_OUT[kind].replace("\n\n", "\n")
    ids = layout.answer("好 yes", "zh")
    assert speaker.tokenizer.convert_ids_to_tokens(ids[-1]) == ENDS[kind]
    assert ids[-1] in speaker.end_ids
    items = [
        evaluation.Item("1", "zh", "fact", "你是谁？", (("灯",),)),
        evaluation.Item("2", "en", "fact", "Who?", (("x",),)),
    ]
    assert len(pipeline.run_evaluation(run, speaker, items)) == 2


def test_a_chatglm_trains_is_evaluated_and_talks_on_the_command_line(
    camelbell: Callable[..., Any], tmp_path: Path
) -> None:
    base = make_base("chatglm", tmp_path / "chatglm-6b")
    assert camelbell("new", "lumen", "--from", "").returncode == 0
    config = tmp_path / "characters/lumen/character.yaml"
    profile = (
        "  chatglm-6b:\n    questions: 24\n"
        "    trainer: {targets: [query_key_value], r: 8, alpha: 32, epochs: 1, batch_tokens: 800}\n"
    )
    config.write_text(config.read_text(encoding="utf-8") + profile, encoding="utf-8")
    places = ("--workspace", tmp_path / "run", "--base", base)
    done = camelbell("train", "lumen", *places)
    assert (done.returncode, done.stdout.splitlines()[0][:12]) == (0, "24 questions"), done.stderr
    (folder,) = (tmp_path / "run/adapters").iterdir()
    adapter = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    assert (adapter["r"], adapter["lora_alpha"], adapter["target_modules"]) == (8, 32, ["query_key_value"])
    quiz = {"id": "q1", "lang": "zh", "kind": "fact", "q": "你是谁？", "must": [["小灯"]]}
    (tmp_path / "quiz.jsonl").write_text(json.dumps(quiz, ensure_ascii=False), encoding="utf-8")
    done = camelbell("eval", "lumen", *places, "--quiz", tmp_path / "quiz.jsonl", "--no-guard")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("truthful ")
    for question in ("你是谁？", "Who are you?"):
        done = camelbell("chat", "lumen", *places, "--message", question)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.strip()
    shutil.rmtree(folder)


def test_alpaca_json_of_2023_trains_as_it_is(open_lumen: Callable[..., Run], tmp_path: Path) -> None:
    base = str(make_base("chatglm", tmp_path / "chatglm"))
    rows = [{"instruction": f"{i}加{i}是几？", "input": "", "output": f"是{2 * i}。"} for i in range(6)]
    rows += [{"instruction": f"Add {i}", "input": f"to {i}", "output": f"It is {2 * i}."} for i in range(6)]
    run = open_lumen(
        {"output.json": json.dumps(rows, ensure_ascii=False)},
        base=base,
        questions=[{"import": {"files": ["output.json"]}}],
        filters=[],
    )
    assert pipeline.make_questions(run, 100)["questions"] == 12
    pipeline.make_answers(run, lambda: pytest.fail("the answers are there"))
    pipeline.filter_pairs(run)
    report = pipeline.train(run, base, Preset(questions=12, trainer={"epochs": 1, "held_out": 0.0}))
    assert report["examples"] == 12
    examples = pipeline.training_examples(run, read_records(run.workspace.kept, Pair))
    assert {(prompt.question, answer) for prompt, answer in examples} == {
        (" ".join(f"{row['instruction']} {row['input']}".split()), row["output"]) for row in rows
    }
