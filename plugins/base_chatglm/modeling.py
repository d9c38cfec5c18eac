"""ChatGLM-6B, first version, as a model of transformers; the state dict has the released key names.

Written from the published mathematics: post-scaled residuals around the normalised input (alpha * LN(x) + f(LN(x)))
as in GLM-130B (Zeng et al. 2022), two rotary streams (Su et al. 2021), heads interleaved as in Megatron-LM.
"""

from __future__ import annotations

from functools import cache
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel, AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from camelbell_plugins.base_chatglm import positions
from camelbell_plugins.base_chatglm.configuration import ChatGLMConfig
from camelbell_plugins.base_chatglm.packed import read_unpacked

_MASKED = -1e4  # the released score of a key that is not seen


@cache
def rotary_frequencies(dim: int, device: torch.device) -> Tensor:
    """Return the ``dim / 2`` angles a position, rounded to half precision as in the released weights, in float32.

    The rounding matters: at position 511 a cosine differs by 0.08 from that of the exact frequency.
    """
    exact = 1.0 / 10000 ** (torch.arange(0, dim, 2, dtype=torch.float32, device="cpu") / dim)
    return exact.half().float().to(device)


def rotary_tables(position_ids: Tensor, head_dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return cosines and sines, (batch, length, 1, streams, head_dim / streams / 2), always made in float32."""
    streams = position_ids[:, None] if position_ids.ndim == 2 else position_ids
    frequencies = rotary_frequencies(head_dim // streams.shape[1], position_ids.device)
    angles = streams.transpose(1, 2)[:, :, None, :, None].float() * frequencies
    return angles.cos().to(dtype), angles.sin().to(dtype)


def split_and_turn(fused: Tensor, cosines: Tensor, sines: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values, (batch, length, heads, head_dim), of (batch, length, heads, 3 * head_dim).

    Queries and keys are turned by their positions, half against half; each stream turns its own part of a head: the
    first by the position, the second by the block position.
    """
    if fused.requires_grad and torch.is_grad_enabled() and not torch.compiler.is_compiling():
        made: tuple[Tensor, Tensor, Tensor] = _SplitAndTurn.apply(fused, cosines, sines)  # type: ignore[no-untyped-call]
        return made
    query, key, value = fused.chunk(3, -1)
    return _turned(query, cosines, sines), _turned(key, cosines, sines), value


def _halves(states: Tensor, cosines: Tensor) -> tuple[Tensor, Tensor]:
    """Return views of the two halves that turn against each other, (..., streams, head_dim / streams / 2)."""
    parts = states.view(*states.shape[:-1], cosines.shape[-2], 2, cosines.shape[-1])
    return parts[..., 0, :], parts[..., 1, :]


def _turned(states: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    first, second = _halves(states, cosines)
    made = torch.stack((first * cosines - second * sines, second * cosines + first * sines), -2)
    return made.flatten(-3)


def _turn_into(target: Tensor, states: Tensor, cosines: Tensor, sines: Tensor, way: float) -> None:
    """Write states turned by their angles (``way`` 1) or back (-1) into a tensor of their shape."""
    first, second = _halves(states, cosines)
    into_first, into_second = _halves(target, cosines)
    torch.mul(first, cosines, out=into_first).addcmul_(second, sines, value=-way)
    torch.mul(second, cosines, out=into_second).addcmul_(first, sines, value=way)


class _SplitAndTurn(torch.autograd.Function):
    """The same for training, in a third of the passes over memory: the gradients land in one buffer."""

    @staticmethod
    def forward(ctx: Any, fused: Tensor, cosines: Tensor, sines: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = fused.chunk(3, -1)
        made = [torch.empty_like(query, memory_format=torch.contiguous_format) for _ in range(2)]
        for target, states in zip(made, (query, key), strict=True):
            _turn_into(target, states, cosines, sines, 1.0)
        ctx.save_for_backward(cosines, sines)
        return made[0], made[1], value.contiguous()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        cosines, sines = ctx.saved_tensors
        whole = torch.empty(
            (*grads[0].shape[:-1], 3 * grads[0].shape[-1]), dtype=grads[0].dtype, device=grads[0].device
        )
        for target, grad in zip(whole.chunk(3, -1)[:2], grads[:2], strict=True):
            _turn_into(target, grad, cosines, sines, -1.0)
        whole.chunk(3, -1)[2].copy_(grads[2])
        return whole, None, None


def attention_weights(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    """Return softmax(q k / sqrt(d)) in float32, (batch, heads, queries, keys), in the type of the queries."""
    scores = (query @ key.transpose(-1, -2)).float() / sqrt(query.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, _MASKED) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1).to(query.dtype)


class ChatGLMAttention(nn.Module):
    """Self-attention; the rows of ``query_key_value`` are the query, key and value of head after head."""

    def __init__(self, config: ChatGLMConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.heads = config.num_attention_heads
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        states: Tensor,
        attention_mask: Tensor | None,
        rotary: tuple[Tensor, Tensor],
        past_key_values: Cache | None = None,
        output_attentions: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return what the heads gather, (batch, length, hidden), and their weights where these are asked for."""
        qkv = self.query_key_value(states).unflatten(-1, (self.heads, -1))
        query, key, value = (part.transpose(1, 2) for part in split_and_turn(qkv, *rotary))
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        weights = None
        if output_attentions or self.config._attn_implementation == "eager":
            weights = attention_weights(query, key, attention_mask)
            gathered = weights @ value
        else:
            gathered = functional.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask)
        return self.dense(gathered.transpose(1, 2).flatten(2)), weights


class ChatGLMFeedForward(nn.Module):
    """Two linear layers with a tanh-approximated GELU between them; there is no gate."""

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__()
        self.dense_h_to_4h = nn.Linear(config.hidden_size, config.inner_hidden_size)
        self.dense_4h_to_h = nn.Linear(config.inner_hidden_size, config.hidden_size)

    def forward(self, states: Tensor) -> Tensor:
        """Return (batch, length, hidden)."""
        made: Tensor = self.dense_4h_to_h(functional.gelu(self.dense_h_to_4h(states), approximate="tanh"))
        return made


class ChatGLMLayer(GradientCheckpointingLayer):  # type: ignore[misc]
    """A block: each half adds to its *normalised* input, scaled by alpha, not to the input itself."""

    def __init__(self, config: ChatGLMConfig, layer_idx: int) -> None:
        super().__init__()
        self.alpha = sqrt(2 * config.residual_layers)
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.attention = ChatGLMAttention(config, layer_idx)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.mlp = ChatGLMFeedForward(config)

    def forward(
        self,
        states: Tensor,
        attention_mask: Tensor | None,
        rotary: tuple[Tensor, Tensor],
        past_key_values: Cache | None = None,
        output_attentions: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the states that the next block reads, and the attention weights where these are asked for."""
        states = self.input_layernorm(states)
        attended, weights = self.attention(states, attention_mask, rotary, past_key_values, output_attentions)
        states = self.post_attention_layernorm(torch.add(attended, states, alpha=self.alpha))
        return torch.add(self.mlp(states), states, alpha=self.alpha), weights


class ChatGLMPreTrainedModel(PreTrainedModel):  # type: ignore[misc]
    """What the bare model and the one with a head share."""

    config_class = ChatGLMConfig
    base_model_prefix = "transformer"
    supports_gradient_checkpointing = True
    _no_split_modules = ["ChatGLMLayer"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _keys_to_ignore_on_load_unexpected = [r"rotary_emb\.inv_freq$"]  # noqa: RUF012
    _supports_sdpa = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            init.normal_(module.weight, std=self.config.initializer_range)
            if isinstance(module, nn.Linear) and module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Open a folder or hub id; the packed weights of the int8 and int4 releases are unpacked on the way."""
        config = kwargs.get("config")
        if config is None and pretrained_model_name_or_path is not None:
            places = ("revision", "token", "cache_dir", "local_files_only", "subfolder")
            known = {name: kwargs[name] for name in places if name in kwargs}
            config = ChatGLMConfig.from_pretrained(pretrained_model_name_or_path, **known)
        if config is None or not config.quantization_bit or kwargs.get("state_dict") is not None:
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        kwargs["state_dict"] = read_unpacked(pretrained_model_name_or_path, config.quantization_bit, kwargs)
        config.quantization_bit = 0  # what is saved from here on is not packed
        return super().from_pretrained(None, *args, **{**kwargs, "config": config})


class ChatGLMModel(ChatGLMPreTrainedModel):
    """The blocks, from token ids to hidden states."""

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__(config)
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(ChatGLMLayer(config, number) for number in range(config.num_layers))
        self.final_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the embedding of the tokens."""
        return self.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Put another embedding in place."""
        self.word_embeddings = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **ignored: Any,
    ) -> Any:
        """Return the last hidden states, (batch, length, hidden).

        ``attention_mask`` is (batch, keys) with 0 at pads, or the released tokenizer's bool (batch, 1, queries, keys)
        with True at what is *not* seen, or a float one that is added to the scores. ``position_ids`` is (batch, 2,
        length), (batch, length) with one stream. Both are derived from ``input_ids`` where they are not given.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        use_cache = self.config.use_cache if use_cache is None else use_cache
        if self.training and self.gradient_checkpointing:
            use_cache = False
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        states = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        mask, place = self._mask_and_positions(states, input_ids, attention_mask, position_ids, past_key_values)
        rotary = rotary_tables(place, self.config.hidden_size // self.config.num_attention_heads, states.dtype)
        output_attentions = self.config.output_attentions if output_attentions is None else output_attentions
        output_hidden_states = (
            self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        )
        all_states: list[Tensor] = []
        all_weights: list[Tensor] = []
        cache_ = past_key_values if use_cache or past_key_values is not None else None
        for layer in self.layers:
            all_states += [states] if output_hidden_states else []
            states, weights = layer(states, mask, rotary, cache_, bool(output_attentions))
            all_weights += [weights] if output_attentions else []
        states = self.final_layernorm(states)
        all_states += [states] if output_hidden_states else []
        if cache_ is not None:
            cache_.chatglm_position = place[..., -1:]
        output = BaseModelOutputWithPast(
            last_hidden_state=states,
            past_key_values=cache_,
            hidden_states=tuple(all_states) or None,
            attentions=tuple(all_weights) or None,
        )
        return output if return_dict is not False else output.to_tuple()

    def _mask_and_positions(
        self,
        states: Tensor,
        ids: Tensor | None,
        mask: Tensor | None,
        place: Tensor | None,
        past: Cache | None,
    ) -> tuple[Tensor | None, Tensor]:
        """Return the attention mask, None where every row sees every key, and the position ids."""
        batch, queries = states.shape[:2]
        before = int(past.get_seq_length()) if past is not None else 0
        keys = before + queries
        two_streams = self.config.position_encoding_2d
        if place is not None and place.ndim != (3 if two_streams else 2):
            place = None  # generic code counts 0, 1, 2; that says nothing here
        real = states.new_ones((batch, keys), dtype=torch.bool)
        if mask is not None and mask.ndim == 2:
            real = torch.cat((mask.bool()[:, :keys], real[:, mask.shape[1] :]), 1)
        now = real[:, before:]
        if ids is not None and not before and (place is None or mask is None or mask.ndim == 2):
            if not torch.compiler.is_compiling() and (ids.device.type == "cpu" or not self.training):
                positions.check_rows(ids, now, self.config)
            place = positions.position_ids(ids, now, self.config) if place is None else place
        if place is None:
            place = self._continued(past, queries)
        if mask is not None and mask.ndim == 4:
            return _released_mask(mask, queries, keys), place
        if before and queries == 1 and mask is None:
            seen = None
        else:
            context = real.clone()  # whatever stands in the cache is seen
            if ids is not None:
                answer = positions.answer_columns(ids, now, self.config)
            else:
                answer = place[:, 1] > 0 if two_streams else torch.ones_like(now)
            context[:, before:] = ~answer if not before else False
            seen = positions.attention_mask(real, context, queries)
        longest = past.get_max_length() if past is not None and past.is_compileable else -1
        if longest > keys:  # a cache of fixed length: the rest of it is empty
            seen = states.new_ones((batch, 1, queries, keys), dtype=torch.bool) if seen is None else seen
            seen = functional.pad(seen, (0, longest - keys))
        return seen, place

    def _continued(self, past: Cache | None, queries: int) -> Tensor:
        """Return the positions of tokens that follow those of a cache."""
        last: Tensor | None = getattr(past, "chatglm_position", None)
        if last is None:
            raise ValueError("inputs_embeds need position_ids: only token ids tell where the answer begins")
        steps = torch.arange(1, queries + 1, device=last.device)
        if not self.config.position_encoding_2d:
            return last + steps
        return torch.stack((last[:, 0].expand(-1, queries), last[:, 1] + steps), 1)


def _released_mask(mask: Tensor, queries: int, keys: int) -> Tensor:
    """Return the mask of the released tokenizer, True at what is not seen, the other way round and grown to the cache.

    A row that sees nothing, which a pad is, sees all instead; a mask of floats is returned as it is.
    """
    if mask.dtype != torch.bool:
        return mask
    seen = functional.pad(~mask[:, :, -queries:], (0, keys - mask.shape[-1]), value=True)
    return seen | ~seen.any(-1, keepdim=True)


class ChatGLMForConditionalGeneration(ChatGLMPreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """ChatGLM with its output layer, which shares the embedding's weights unless the configuration says otherwise."""

    _tied_weights_keys = {"lm_head.weight": "transformer.word_embeddings.weight"}  # noqa: RUF012

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__(config)
        self.transformer = ChatGLMModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        """Return the output layer."""
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Put another output layer in place."""
        self.lm_head = new_embeddings

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **more: Any,
    ) -> Any:
        """Return the logits, (batch, length, vocabulary), and with ``labels`` the mean loss of those not -100.

        The other arguments are those of ``ChatGLMModel``.
        """
        output = self.transformer(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(output.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **more)
        made = CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )
        return made if return_dict is not False else made.to_tuple()

    def generate(self, inputs: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        """Generate as every model of transformers; the released tokenizer's mask and positions are understood too."""
        mask = kwargs.get("attention_mask")
        if isinstance(mask, Tensor) and mask.ndim == 4:  # the last token sees all but the pads
            seen = ~mask[:, 0, -1] if mask.dtype == torch.bool else mask[:, 0, -1] >= 0
            kwargs["attention_mask"] = seen.long()
        kwargs.pop("position_ids", None)  # each step derives them from all ids
        return super().generate(inputs, *args, **kwargs)

    def prepare_inputs_for_generation(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return what a step of ``generate`` feeds: the new tokens, with positions derived from all ids."""
        mask = kwargs.get("attention_mask")
        if kwargs.get("inputs_embeds") is None:
            real = mask.bool() if mask is not None and mask.ndim == 2 else torch.ones_like(input_ids, dtype=torch.bool)
            kwargs["position_ids"] = positions.position_ids(input_ids, real, self.config)
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(input_ids, *args, **kwargs)
        return inputs

    def create_masks_for_generate(self, *args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> Any:
        """Return the mask as it came: the model makes its own, for a cache of fixed length too."""
        return attention_mask


AutoModel.register(ChatGLMConfig, ChatGLMModel, exist_ok=True)
AutoModelForCausalLM.register(ChatGLMConfig, ChatGLMForConditionalGeneration, exist_ok=True)
