"""Cross-entropy at the answer positions, in chunks, with the gradient made in the forward pass.

The output layer is frozen, so a position's gradient to its hidden state is (softmax(Wh) - onehot) W: it is
made chunk by chunk while the logits exist, and no logits are kept. With a vocabulary of 262,144 the full
logits of a batch would take gigabytes and most of the time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

# Positions at a time: 64 x 262,144 fp32 logits are 64 MiB, which a processor's caches and memory like; a GPU wants more.
_CHUNK_CPU, _CHUNK_GPU = 64, 2048


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float) -> Tensor:
        gradient = torch.empty_like(hidden)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        chunk = _CHUNK_CPU if hidden.device.type == "cpu" else _CHUNK_GPU
        for start in range(0, hidden.shape[0], chunk):
            part = slice(start, start + chunk)
            logits = hidden[part] @ weight.T
            scores = softcap * torch.tanh(logits.float() / softcap) if softcap else logits
            # One kernel from the logits to float32 log-probabilities; the rest is done in place.
            delta = functional.log_softmax(scores, -1, dtype=torch.float32)
            wanted = targets[part, None]
            total -= delta.gather(1, wanted).sum()
            delta = delta.exp_().scatter_add_(1, wanted, delta.new_full((1, 1), -1.0).expand_as(wanted))
            if softcap:
                delta *= 1 - (scores / softcap) ** 2
            gradient[part] = delta.to(weight.dtype) @ weight
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0].to(gradient.dtype), None, None, None


def answer_loss(model: Any, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
    """Return the summed cross-entropy of the answer tokens, and how many they are.

    ``batch`` is one of ``collate``; ``model`` is a causal language model with a frozen output layer. The padding stands
    on the right, so there is no attention mask, and attention takes the kernels that know causality by themselves.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = base.get_decoder()(input_ids=batch["input_ids"], use_cache=False).last_hidden_state
    targets = batch["targets"]
    head = base.get_output_embeddings()
    states = hidden.flatten(0, 1).index_select(0, batch["places"])
    scale = getattr(base.config, "logit_scale", 1.0) / getattr(base.config, "logits_scaling", 1.0)
    if getattr(head, "bias", None) is not None or scale != 1.0:
        logits = head(states).float() * scale
        return functional.cross_entropy(logits, targets, reduction="sum"), int(targets.numel())
    softcap = float(getattr(base.config, "final_logit_softcapping", None) or 0.0)
    loss: Tensor = _ChunkedCrossEntropy.apply(states, head.weight, targets, softcap)  # type: ignore[no-untyped-call]
    return loss, int(targets.numel())
