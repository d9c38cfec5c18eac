"""Tiny random base models in a folder: real transformers models and tokenizers that take milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from camelbell_core.prompts import Prompt
from camelbell_core.records import Message
from camelbell_core.roles import TrainableBase
from camelbell_plugins.base_hub import HubBase

torch.set_num_threads(1)  # models this small only lose by sharing their work

LINES = [
    "你好，世界！我是哈利·波特，在霍格沃茨上学。",
    "你是谁？我记得的事：问：答：他住在女贞路四号。",
    "Hello, world! I am Harry Potter and I go to school at Hogwarts.",
    "Who are you? What I remember: Q: A: He lives at four Privet Drive.",
]
# Like ChatML, with <bos>.
CHAT = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
# Like Gemma's: no system turn, and user and assistant take turns.
STRICT = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns must alternate') }}{% endif %}"
    "[{{ m['role'] }}]{{ m['content'] }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
TEMPLATES = {"plain": None, "chat": CHAT, "strict": STRICT}
KINDS = ("llama", "gemma3")

ZH = Prompt(
    "zh",
    "我是哈利·波特。",
    "你住在哪里？",
    ("世界很大。", "他住在女贞路四号。"),
    (
        Message("user", "你好"),
        Message("assistant", "你好！"),
        Message("user", "你是谁？"),
        Message("assistant", "哈利。"),
    ),
)
EN = Prompt(
    "en",
    "I am Harry Potter.",
    "Where do you live?",
    ("The world is big.", "He lives at four Privet Drive."),
    (Message("user", "Hello"), Message("assistant", "Hi!"), Message("user", "Who?"), Message("assistant", "Harry.")),
)
PROMPTS = {"zh": ZH, "en": EN}


def tiny_tokenizer(template: str | None = None, vocabulary: int = 320) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer; most Chinese characters are several tokens of it."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<pad>", "<bos>", "<eos>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(LINES, trainer)
    special = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, **special)
    tokenizer.chat_template = template
    return tokenizer


def tiny_model(kind: str, vocabulary: int, **changes: Any) -> Any:
    """Return a random float32 model of two layers, 32 wide."""
    sizes = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    torch.manual_seed(0)
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**{**sizes, **changes})).eval()
    return Gemma3ForCausalLM(Gemma3TextConfig(**{**sizes, "head_dim": 8, "sliding_window": 64, **changes})).eval()


def save_base(folder: Path, model: Any, tokenizer: Any) -> Path:
    """Write a model folder as the hub has them."""
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


def make_bases(root: Path) -> dict[str, Path]:
    """Write a folder for each kind of model and each template, and return them by names like llama-chat."""
    folders = {}
    for layout, template in TEMPLATES.items():
        tokenizer = tiny_tokenizer(template)
        for kind in KINDS:
            name = f"{kind}-{layout}"
            folders[name] = save_base(root / name, tiny_model(kind, len(tokenizer)), tokenizer)
    return folders


def open_base(folder: Path) -> TrainableBase:
    """Open a model folder as a user's, its numbers in float32 on every machine."""
    base = HubBase().load_trainable(str(folder))
    base.model.float()
    return base


def reciter(tokenizer: Any, first: int, ids: list[int]) -> Any:
    """Return a Llama model that, after the token ``first``, greedily says ``ids`` one after the other, then again.

    Its layers add nothing, so the next token follows from the last one alone: each token may stand there once.
    """
    assert len({first, *ids}) == len(ids) + 1, "a token stands there twice"
    model = tiny_model("llama", len(tokenizer), hidden_size=64, tie_word_embeddings=False)
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        head.zero_()
        head[ids[0]] = embedding[first] / embedding[first].norm()
        for last, token in zip([ids[-1], *ids], ids, strict=False):
            head[token] += embedding[last] / embedding[last].norm()
    return model
