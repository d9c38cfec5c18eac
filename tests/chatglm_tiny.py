"""A tiny ChatGLM in the layout of the released folders, with a tokenizer trained here that has their special pieces."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from sentencepiece import SentencePieceTrainer

from camelbell_plugins.base_chatglm.configuration import ChatGLMConfig
from camelbell_plugins.base_chatglm.modeling import ChatGLMForConditionalGeneration

TEXTS = [
    "你好，世界！我是哈利·波特，在霍格沃茨上学。",
    "你是谁？我记得的事：问：答：他住在女贞路四号。",
    "Hello, world! I am Harry Potter and I go to school at Hogwarts.",
    "Who are you? What I remember: Q: A: He lives at four Privet Drive.",
    "Instruction: Answer: Input: [Round 0] 0 1 2 3 4 5 6 7 8 9",
]
MARKS = ("[MASK]", "[gMASK]", "[sMASK]", "<unused_0>", "<sop>", "<eop>", "<ENC>", "<dBLOCK>")
BLANKS = ("<|tab|>", *(f"<|blank_{n}|>" for n in range(2, 81)))


def train_pieces(slim: bool = True, texts: Iterable[str] = TEXTS) -> bytes:
    """Return a sentencepiece model with the released pieces; the first releases' files (not slim) lack some of them."""
    written = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter([*texts] * 20),
        model_writer=written,
        vocab_size=700 if slim else 200,
        hard_vocab_limit=False,
        byte_fallback=slim,
        normalization_rule_name="nmt_nfkc",
        remove_extra_whitespaces=True,
        add_dummy_prefix=True,
        pad_id=3,
        control_symbols=list(MARKS) if slim else [],
        user_defined_symbols=["<n>", *BLANKS] if slim else ["<n>"],
        minloglevel=2,
    )
    return written.getvalue()


def tokenizer_folder(folder: Path, slim: bool = True) -> Path:
    """Write ``ice_text.model`` and ``tokenizer_config.json`` as a release has them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ice_text.model").write_bytes(train_pieces(slim))
    config: dict[str, Any] = {
        "name_or_path": "THUDM/chatglm-6b",
        "bos_token": "<sop>",
        "eos_token": "<eop>" if slim else "</s>",
        "end_token": "</s>",
        "gmask_token": "[gMASK]",
        "mask_token": "[MASK]",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "remove_space": False,
        "do_lower_case": False,
        "tokenizer_class": "ChatGLMTokenizer",
        **({"num_image_tokens": 0} if slim else {}),
        "auto_map": {"AutoTokenizer": ["tokenization_chatglm.ChatGLMTokenizer", None]},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def tiny_chatglm(vocabulary: int, ids: dict[str, int], **changes: Any) -> ChatGLMForConditionalGeneration:
    """Return a random float32 ChatGLM of two layers, 32 wide; ``ids`` are those of the special tokens."""
    sizes: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_layers": 2,
        "inner_hidden_size": 64,
        "max_sequence_length": 512,
        **ids,
    }
    torch.manual_seed(0)
    return ChatGLMForConditionalGeneration(ChatGLMConfig(**{**sizes, **changes})).eval()


def special_ids(tokenizer: Any) -> dict[str, int]:
    """Return the special ids of a tokenizer by their names in config.json."""
    return {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "mask_token_id": tokenizer.mask_token_id,
        "gmask_token_id": tokenizer.gmask_token_id,
    }


def chatglm_base(folder: Path, **changes: Any) -> Path:
    """Write a tiny ChatGLM with its tokenizer as a release has them."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(tokenizer_folder(folder)))
    tiny_chatglm(len(tokenizer), special_ids(tokenizer), **changes).save_pretrained(str(folder))
    return folder
