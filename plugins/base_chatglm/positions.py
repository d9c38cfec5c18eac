"""Positions and attention mask of ChatGLM, derived from the token ids of a batch.

A row is a context, which sees itself in both directions, then ``<sop>`` and the answer, which sees what
stands before. The context holds [gMASK] or [MASK]; the answer takes the mask's position (Du et al. 2022,
GLM, section 2.2), and counts its own tokens in a second stream, the block positions, from 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from camelbell_plugins.base_chatglm.configuration import ChatGLMConfig


def answer_columns(ids: Tensor, real: Tensor, config: ChatGLMConfig) -> Tensor:
    """Return which tokens stand at the first ``<sop>`` or behind it, as bool (batch, length)."""
    starts: Tensor = (ids == config.bos_token_id) & real
    return starts.cumsum(-1).bool()


def position_ids(ids: Tensor, real: Tensor, config: ChatGLMConfig) -> Tensor:
    """Return positions and block positions, (batch, 2, length), or (batch, length) for one stream.

    ``real`` is False where a token is padding; pads have position 0 and count for nothing.
    """
    index = (real.cumsum(-1) - 1).clamp(min=0)
    answer = answer_columns(ids, real, config)
    gmask, mask = (((ids == token) & real).int() for token in (config.gmask_token_id, config.mask_token_id))
    has_gmask = gmask.amax(-1, keepdim=True) > 0
    place = torch.where(has_gmask, gmask.argmax(-1, keepdim=True), mask.argmax(-1, keepdim=True))
    place = index.gather(-1, place)
    if not config.position_encoding_2d:
        # With one stream the answer behind [gMASK] counts on, cached or not.
        return torch.where(answer & ~has_gmask, place, index)
    positions = torch.where(answer, place, index)
    blocks = answer.long().cumsum(-1)
    return torch.stack((positions, blocks), 1) * real[:, None]


def check_rows(ids: Tensor, real: Tensor, config: ChatGLMConfig) -> None:
    """Raise for a row without ``<sop>``, or without [gMASK] and [MASK]: nothing tells where its answer begins."""
    masked = (((ids == config.gmask_token_id) | (ids == config.mask_token_id)) & real).any(-1)
    started = ((ids == config.bos_token_id) & real).any(-1)
    if not bool((masked & started).all()):
        row = int((masked & started).int().argmin())
        lacks = "[gMASK] or [MASK]" if not bool(masked[row]) else "<sop>"
        raise ValueError(f"row {row} of the input has no {lacks}: encode text with the tokenizer's special tokens")


def attention_mask(real: Tensor, context: Tensor, queries: int) -> Tensor:
    """Return who sees whom, as bool (batch, 1, queries, keys), True where a key is seen.

    ``real`` (batch, keys) leaves out padding, ``context`` (batch, keys) are the keys that every row sees;
    the last ``queries`` keys are the rows. A padded row sees itself, so that no row sees nothing.
    """
    keys = real.shape[-1]
    key = torch.arange(keys, device=real.device)
    row = key[keys - queries :, None]
    seen = ((key <= row) | context[:, None, :]) & real[:, None, :]
    return (seen | (key == row))[:, None]
