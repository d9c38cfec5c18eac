"""LoRA layers that compute in the type of the base, with as few passes over the activations as there can be.

peft turns each activation into float32 for its adapters, or needs autocast, which makes norms compute in float32; both
take more time on a GPU than the adapters' products. Here a layer is one node of the graph: W x + b and the adapter's
part land in one buffer, and nothing of the frozen weight is kept or copied. The adapter's weights, and what the
optimizer sees of their gradients, stay float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora.layer import LoraLayer
from torch import Tensor, nn
from torch.nn import functional


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        low_a, low_b = a.to(x.dtype), (b * scale).to(x.dtype)
        down = rows @ low_a.T
        made = functional.linear(rows, weight, bias).addmm_(down, low_b.T)
        ctx.save_for_backward(rows, weight, low_a, low_b, down)
        ctx.scale, ctx.dtype, ctx.shape = scale, a.dtype, x.shape
        return made.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, low_a, low_b, down = ctx.saved_tensors
        grad = grads[0].reshape(-1, grads[0].shape[-1])
        up = grad @ low_b
        grad_x = (grad @ weight).addmm_(up, low_a).view(ctx.shape) if ctx.needs_input_grad[0] else None
        grad_a = (up.T @ rows).to(ctx.dtype)
        grad_b = (grad.T @ down).to(ctx.dtype) * ctx.scale
        return grad_x, None, None, grad_a, grad_b, None


class _Fused:
    """What takes the place of the ``forward`` of a LoRA layer of peft; mixed in before its class."""

    def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        (name,) = self.active_adapters
        a, b, scale = self.lora_A[name].weight, self.lora_B[name].weight, self.scaling[name]
        base = self.base_layer
        if type(base) is nn.Linear and not torch.compiler.is_compiling():
            made: Tensor = _LoraLinear.apply(x, base.weight, base.bias, a, b, scale)  # type: ignore[no-untyped-call]
            return made
        # A compiler fuses this by itself; a quantized layer computes its own part.
        down = functional.linear(x, a.to(x.dtype))
        added: Tensor = base(x) + functional.linear(down, (b * scale).to(x.dtype))
        return added


def _can_be_fused(layer: LoraLayer) -> bool:
    """Tell whether a layer is a plain LoRA on a linear layer: no dropout, no variant, no bias of its own."""
    name = layer.active_adapters[0] if len(layer.active_adapters) == 1 else ""
    return (
        name in layer.lora_A
        and isinstance(layer.lora_A[name], nn.Linear)
        and isinstance(layer.lora_dropout[name], nn.Identity)
        and name not in layer.lora_variant
        and layer.lora_B[name].bias is None
        and not layer.merged
    )


@contextmanager
def fused(model: nn.Module) -> Iterator[bool]:
    """Let the LoRA layers of a model compute as said above; yields whether all of them do."""
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    changed = [layer for layer in layers if _can_be_fused(layer)]
    # A class, not a function on each layer: a compiler takes layers of one class for one piece of code.
    classes: dict[type, type] = {}
    before = [type(layer) for layer in changed]
    for layer, kind in zip(changed, before, strict=True):
        layer.__class__ = classes.setdefault(kind, type(f"Fused{kind.__name__}", (_Fused, kind), {}))
    try:
        yield len(changed) == len(layers)
    finally:
        for layer, kind in zip(changed, before, strict=True):
            layer.__class__ = kind
