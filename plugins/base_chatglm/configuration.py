"""The configuration of ChatGLM-6B, with the field names of its released ``config.json``."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import AutoConfig, PreTrainedConfig


class ChatGLMConfig(PreTrainedConfig):  # type: ignore[misc]
    """Sizes and special token ids of a ChatGLM-6B model (first version; Zeng et al. 2022, GLM-130B, section 2).

    ``inner_hidden_size`` is the width of the feed-forward layer. ``residual_layers`` is the depth that the residual
    scale sqrt(2 * depth) is made of: the released code takes 28 whatever ``num_layers`` says.
    ``quantization_bit`` 8 or 4 marks a release whose linear weights are packed integers.
    """

    model_type: ClassVar[str] = "chatglm"
    attribute_map: ClassVar[dict[str, str]] = {
        "num_hidden_layers": "num_layers",
        "intermediate_size": "inner_hidden_size",
        "layer_norm_eps": "layernorm_epsilon",
        "max_position_embeddings": "max_sequence_length",
    }
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]

    vocab_size: int = 130528
    hidden_size: int = 4096
    num_layers: int = 28
    num_attention_heads: int = 32
    inner_hidden_size: int = 16384
    layernorm_epsilon: float = 1e-5
    max_sequence_length: int = 2048
    position_encoding_2d: bool = True
    residual_layers: int = 28
    initializer_range: float = 0.02
    use_cache: bool = True
    bos_token_id: int | None = 130004
    eos_token_id: int | list[int] | None = 130005
    pad_token_id: int | None = 3
    mask_token_id: int = 130000
    gmask_token_id: int = 130001
    quantization_bit: int = 0
    quantization_embeddings: bool = False
    pre_seq_len: int | None = None
    prefix_projection: bool = False
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is no multiple of {self.num_attention_heads} heads")
        if self.quantization_bit not in (0, 4, 8):
            raise ValueError(f"quantization_bit must be 0, 4 or 8, not {self.quantization_bit}")
        if self.pre_seq_len is not None:
            raise ValueError("pre_seq_len: p-tuning prefixes are not supported; train a LoRA adapter instead")
        super().__post_init__(**kwargs)


AutoConfig.register("chatglm", ChatGLMConfig, exist_ok=True)
