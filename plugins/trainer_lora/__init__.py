"""The ``lora`` trainer: low-rank adapters (Hu et al. 2021) by peft, in a loop made for short answers.

The loss is taken on answer tokens only and in chunks, batches hold examples of like length, weights are
bfloat16 where the processor computes in it; checkpoints resume to the same losses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from camelbell_core import hookimpl
from camelbell_core.roles import Trainer, TrainingJob

# The linear layers of a block, by all names that they have: an architecture knows some of them.
_TARGETS = (
    *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "gate_up_proj", "down_proj"),
    *("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
)


@dataclass(kw_only=True)
class LoraTrainer(Trainer):
    """Tunes a LoRA adapter on the answers.

    ``targets`` are the linear layers that get an adapter; ``batch_tokens`` is how many tokens, padding
    counted, a step takes at most; ``max_length`` is the longest example in tokens; ``held_out`` is the
    share of examples that only measure the loss; ``checkpoint_every`` counts steps. ``compile`` compiles the
    layers once for batches of every shape, or with ``shapes`` for each of so many fixed lengths, which pays back in long
    runs on a GPU; ``recompute`` keeps no activations of a layer and computes them a second time, for a third more work
    in far less memory.
    """

    name: ClassVar[str] = "lora"
    r: int = 16
    alpha: int = 32
    targets: tuple[str, ...] = _TARGETS
    epochs: int = 2
    learning_rate: float = 5e-4
    warmup: float = 0.05
    batch_tokens: int = 1024
    max_length: int = 1024
    held_out: float = 0.03
    max_grad_norm: float = 1.0
    checkpoint_every: int = 50
    compile: bool = False
    shapes: int = 0
    recompute: bool = False

    def __post_init__(self) -> None:
        for option in ("r", "alpha", "epochs", "batch_tokens", "max_length", "checkpoint_every"):
            if getattr(self, option) < 1:
                raise ValueError(f"{option} must be 1 or more")
        if self.shapes < 0:
            raise ValueError("shapes must be 0 or more")
        if not self.learning_rate > 0:
            raise ValueError("learning_rate must be more than 0")
        if not 0 <= self.held_out < 1:
            raise ValueError("held_out must be 0 or more and less than 1")

    def train(self, job: TrainingJob) -> dict[str, Any]:
        """Train, going on from a checkpoint where there is one, and save the adapter."""
        from camelbell_plugins.trainer_lora.loop import train

        report: dict[str, Any] = train(self, job)
        return report


@hookimpl
def register_trainers() -> list[type[Trainer]]:
    """Offer the LoRA trainer."""
    return [LoraTrainer]
