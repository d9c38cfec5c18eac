"""The tokenizer that a GGUF file describes: as the tokenizers library has it, and as a transformers tokenizer."""

from __future__ import annotations

import json
from typing import Any

_CONTROL, _USER_DEFINED, _BYTE = 3, 4, 6  # token types of llama.cpp
_BLANK = "\u2581"


def build_backend(metadata: dict[str, Any]) -> Any:
    """Return the tokenizer of a Gemma (sentencepiece BPE) or byte-level BPE file, as a ``tokenizers.Tokenizer``.

    It adds no special token by itself: prompts.py writes <bos>.
    """
    kind = metadata["tokenizer.ggml.model"]
    tokenizer = _gemma(metadata) if kind == "llama" else _byte_level(metadata)
    _add_marked(tokenizer, metadata)
    return tokenizer


def build_tokenizer(metadata: dict[str, Any]) -> Any:
    """Return the same tokenizer for transformers."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=build_backend(metadata), **_special(metadata))
    tokenizer.chat_template = metadata.get("tokenizer.chat_template")
    return tokenizer


def vocabulary(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return a Gemma file's tokenizer for ``camelbell_core.tokens.ImpliedMerges``."""
    tokens, types = _tokens(metadata), metadata["tokenizer.ggml.token_type"].tolist()
    spelled = zip(metadata["tokenizer.ggml.tokens"], tokens, types, strict=True)
    whole = {token: kind for raw, token, kind in spelled if raw == token and kind in (_CONTROL, _USER_DEFINED)}
    always = [token for token, kind in zip(tokens, types, strict=True) if kind == _BYTE]
    return {
        "frame": json.loads(_frame(metadata, {}, []).to_str()),
        "tokens": tokens,
        "added": {token: kind == _CONTROL for token, kind in whole.items()},
        "always": [*always, _special(metadata)["unk_token"]],
        "blank": _BLANK,
        "longest": max(map(len, tokens)),
    }


def _gemma(metadata: dict[str, Any]) -> Any:
    tokens = _tokens(metadata)
    known = {token: number for number, token in enumerate(tokens)}
    return _frame(metadata, known, _merges(tokens, known))


def _frame(metadata: dict[str, Any], known: dict[str, int], merges: list[tuple[str, str]]) -> Any:
    from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import BPE

    unknown = _special(metadata)["unk_token"]
    tokenizer = Tokenizer(BPE(known, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", _BLANK)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace(_BLANK, " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def _tokens(metadata: dict[str, Any]) -> list[str]:
    """Return the tokens in the tokenizer's own text; those of blanks are spelled with real blanks in the file."""
    return [_BLANK * len(t) if " " in t and not t.strip() else t for t in metadata["tokenizer.ggml.tokens"]]


def _byte_level(metadata: dict[str, Any]) -> Any:
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE

    vocabulary = {token: number for number, token in enumerate(metadata["tokenizer.ggml.tokens"])}
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(BPE(vocabulary, merges, continuing_subword_prefix="", end_of_word_suffix=""))
    split: Any = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if metadata.get("tokenizer.ggml.pre") == "smollm":  # each digit stands alone
        split = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), split])
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _merges(tokens: list[str], vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Return the merges that the vocabulary implies: tokens in file order, the longest left part first.

    A Gemma file lists no merges, but its tokens stand in the order in which they were merged.
    """
    return [
        (token[:cut], token[cut:])
        for token in tokens
        for cut in range(len(token) - 1, 0, -1)
        if token[:cut] in vocabulary and token[cut:] in vocabulary
    ]


def _special(metadata: dict[str, Any]) -> dict[str, str]:
    tokens = metadata["tokenizer.ggml.tokens"]
    keys = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    return {f"{name}_token": tokens[metadata[f"tokenizer.ggml.{key}_token_id"]] for name, key in keys.items()}


def _add_marked(tokenizer: Any, metadata: dict[str, Any]) -> None:
    """Keep the tokens whole that the file marks as control or as user-defined."""
    from tokenizers import AddedToken

    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    known = tokenizer.get_vocab()  # runs of blanks are spelled otherwise there: they are plain tokens

    def marked(kind: int, special: bool) -> list[Any]:
        found = [tokens[i] for i in (types == kind).nonzero()[0]]
        return [AddedToken(token, special=special, normalized=False) for token in found if token in known]

    tokenizer.add_special_tokens(marked(_CONTROL, True))
    tokenizer.add_tokens(marked(_USER_DEFINED, False))
