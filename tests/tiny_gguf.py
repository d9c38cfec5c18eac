"""Tiny models written as GGUF files, as llama.cpp's own converter does it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import dequantize, quantize
from tiny_base import tiny_model, tiny_tokenizer

F32, F16, Q8_0 = GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.Q8_0
NORMAL, CONTROL, USER_DEFINED, BYTE = 1, 3, 4, 6  # token types of llama.cpp

# The names of llama.cpp: https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/constants.py
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
AFTER_ATTENTION = {"llama": "ffn_norm", "gemma3": "post_attention_norm"}


def gguf_name(kind: str, name: str) -> str:
    """Return llama.cpp's name of a parameter of transformers."""
    stem = name.removesuffix(".weight")
    if stem in NAMES:
        return NAMES[stem] + ".weight"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{AFTER_ATTENTION[kind] if part == 'post_attention_layernorm' else NAMES[part]}.weight"


def stored(kind: str, name: str, values: np.ndarray, config: Any) -> np.ndarray:
    """Return a parameter as llama.cpp's converter stores it: Gemma's norms plus one, Llama's q and k interleaved."""
    if kind == "gemma3" and "norm" in name:
        return values + 1
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
    if kind == "llama" and heads:
        halves = values.reshape(heads, 2, values.shape[0] // heads // 2, values.shape[1])
        return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))
    return values


def randomise(model: Any, quantisation: GGMLQuantizationType) -> dict[str, np.ndarray]:
    """Give a model random weights that the file's types hold; return the numbers before they were rounded."""
    rng = np.random.default_rng(1)
    sources = {}
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:  # in steps that stay exact when one is added
            values = rng.integers(-64, 64, parameter.shape).astype(np.float32) / 128
            rounded = values
        else:
            values = rng.normal(0, 0.3, parameter.shape).astype(np.float32)
            rounded = dequantize(quantize(values, quantisation), quantisation)
        parameter.data = torch.from_numpy(np.array(rounded)).bfloat16().float()
        sources[name] = values
    return sources


def write_gguf(
    file: Path, kind: str, model: Any, sources: dict[str, np.ndarray], quantisation: GGMLQuantizationType, words: Any
) -> Path:
    """Write a model as a GGUF file; ``words`` adds the tokenizer."""
    config, writer = model.config, GGUFWriter(file, kind)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if kind == "gemma3":
        writer.add_key_length(config.head_dim)
        writer.add_sliding_window(config.sliding_window)
        writer.add_rope_freq_base(config.rope_parameters["full_attention"]["rope_theta"])
    else:
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    words(writer)
    for name, values in sources.items():
        data = stored(kind, name, values, config)
        raw = data if data.ndim == 1 else quantize(data, quantisation)
        raw_type = F32 if data.ndim == 1 else quantisation
        writer.add_tensor(gguf_name(kind, name), raw, raw_dtype=None if raw_type in (F32, F16) else raw_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def add_special(writer: GGUFWriter, bos: int, eos: int, unknown: int, padding: int) -> None:
    """Write the ids of the special tokens."""
    writer.add_bos_token_id(bos)
    writer.add_eos_token_id(eos)
    writer.add_unk_token_id(unknown)
    writer.add_pad_token_id(padding)


def byte_level_words(template: str | None = None, pre: str = "default") -> Callable[[GGUFWriter], None]:
    """Return what writes the tiny byte-level tokenizer, "你好" a user-defined token of it."""
    tokenizer = tiny_tokenizer()
    tokens = [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda row: row[1])]
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]

    def write(writer: GGUFWriter) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list([*tokens, "<unheard of>"])
        writer.add_token_types([CONTROL] * 4 + [NORMAL] * (len(tokens) - 4) + [USER_DEFINED])
        writer.add_token_merges([" ".join(merge) for merge in merges])
        add_special(writer, bos=1, eos=2, unknown=3, padding=0)
        if template:
            writer.add_chat_template(template)

    return write


# In Gemma's order: special tokens, a user-defined line break and runs of blanks, bytes, then by the order of merging.
GEMMA_TOKENS = [
    *("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "\n", "\n\n", "  ", "   "),
    *(f"<0x{byte:02X}>" for byte in range(256)),
    *("ll", "he", "llo", "hello", "▁hello", "你好", "▁w", "or", "ld", "orld", "▁world", "lo"),
    *"▁helowrd你好，",
]
GEMMA_TYPES = [*[CONTROL] * 6, *[USER_DEFINED] * 4, *[BYTE] * 256, *[NORMAL] * (len(GEMMA_TOKENS) - 266)]


def gemma_words(writer: GGUFWriter) -> None:
    """Write a sentencepiece tokenizer as Gemma files hold it: no merges, blanks as blanks."""
    writer.add_tokenizer_model("llama")
    writer.add_token_list(GEMMA_TOKENS)
    writer.add_token_scores([0.0] * len(GEMMA_TOKENS))
    writer.add_token_types(GEMMA_TYPES)
    add_special(writer, bos=2, eos=1, unknown=3, padding=0)


def original(kind: str, **changes: Any) -> tuple[Any, Any]:
    """Return a model of the kind to be written, and what writes its tokenizer."""
    if kind == "gemma3":
        # Every sixth layer looks at everything, the others at 8 tokens.
        sizes = {"num_hidden_layers": 6, "sliding_window": 8, "query_pre_attn_scalar": 8, "rms_norm_eps": 1e-5}
        special = {"bos_token_id": 2, "eos_token_id": 1}
        return tiny_model("gemma3", len(GEMMA_TOKENS), **{**sizes, **special, **changes}), gemma_words
    rope = {"rope_type": "default", "rope_theta": 500_000.0}
    changes = {"tie_word_embeddings": True, "rope_parameters": rope, "rms_norm_eps": 1e-4, **changes}
    return tiny_model("llama", len(tiny_tokenizer()) + 1, **changes), byte_level_words()
