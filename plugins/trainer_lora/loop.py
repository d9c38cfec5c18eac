"""The training loop: steps, checkpoints, the loss curve, and what is saved at the end."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from hashlib import sha256
from math import cos, isfinite, pi
from pathlib import Path
from pickle import UnpicklingError
from random import Random
from time import monotonic
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft import PeftModel as _PeftModel
from peft.helpers import disable_input_dtype_casting

from camelbell_core.adapters import peft_warnings, write_fingerprint
from camelbell_core.errors import CamelBellError
from camelbell_core.journal import Journal, read_rows, write_json, write_rows, write_text
from camelbell_core.records import canonical_json
from camelbell_core.roles import TrainingJob
from camelbell_plugins.trainer_lora.batches import (
    Example,
    bucket_lengths,
    collate,
    encode,
    epoch_batches,
    padded_length,
)
from camelbell_plugins.trainer_lora.card import model_card, plot_losses
from camelbell_plugins.trainer_lora.fused import fused
from camelbell_plugins.trainer_lora.loss import answer_loss

if TYPE_CHECKING:
    from camelbell_plugins.trainer_lora import LoraTrainer


def train(options: LoraTrainer, job: TrainingJob) -> dict[str, Any]:
    """Train as the options say; an adapter of exactly this job that is there already is kept."""
    encoded, counts = encode(job.examples, job.layout, options.max_length)
    if not encoded:
        raise CamelBellError("no example fits the window", f"raise max_length, now {options.max_length} tokens")
    identity = _identity(options, job, encoded)
    done = _finished(job.output, identity)
    if done is not None:
        job.progress(1, 1, "already trained on exactly this")
        return done
    examples, held_out = _split(encoded, options.held_out, job.seed)
    model = _adapted(options, job)
    with _fast(model):
        trained = _Loop(options, job, model, examples, identity).run()
        held_out_loss = _mean_loss(model, held_out, job) if held_out else None
    report = {
        "base": job.base.name,
        "identity": identity,
        **counts,
        "held_out": len(held_out),
        "held_out_loss": held_out_loss,
        **trained,
        "options": asdict(options),
        "device": str(model.device),
        "dtype": str(next(job.base.model.parameters()).dtype).removeprefix("torch."),
    }
    _save(job, model, report)
    return report


def _identity(options: LoraTrainer, job: TrainingJob, encoded: Sequence[Example]) -> str:
    """Return a hash of all that decides the result: data, options, base."""
    digest = sha256(canonical_json([asdict(options), job.base.fingerprint, job.seed]).encode())
    for example in encoded:
        digest.update(f"{example.prefix}:{example.ids}".encode())
    return digest.hexdigest()[:16]


def _finished(folder: Path, identity: str) -> dict[str, Any] | None:
    try:
        report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        same = report["identity"] == identity
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return report if same and (folder / "adapter_model.safetensors").is_file() else None


def _split(encoded: Sequence[Example], share: float, seed: str) -> tuple[list[Example], list[Example]]:
    order = list(encoded)
    Random(seed + ":held-out").shuffle(order)
    count = int(len(order) * share)
    return order[count:], order[:count]


def _adapted(options: LoraTrainer, job: TrainingJob) -> _PeftModel:
    torch.manual_seed(_number(job.seed))
    config = LoraConfig(
        r=options.r,
        lora_alpha=options.alpha,
        target_modules=list(options.targets),
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
        base_model_name_or_path=job.base.name,
    )
    job.base.model.config._name_or_path = job.base.model.name_or_path = job.base.name
    try:
        with peft_warnings():
            model = get_peft_model(job.base.model, config)
    except ValueError as error:
        wanted = ", ".join(options.targets)
        raise CamelBellError(f"{job.base.name} has no layers {wanted}", "name its layers in targets") from error
    model.train()
    assert isinstance(model, _PeftModel)
    return model


@contextmanager
def _fast(model: _PeftModel) -> Iterator[None]:
    """Compute the adapter's products in the type of the base; its weights and their gradients stay float32.

    peft would otherwise turn every activation into float32 for them, which takes most of the time on a GPU.
    """
    with fused(model) as whole:
        if whole or model.device.type != "cuda" or next(model.parameters()).dtype != torch.bfloat16:
            yield
            return
        with torch.autocast("cuda", torch.bfloat16), disable_input_dtype_casting(model):
            yield


def _number(seed: str) -> int:
    return int(sha256(seed.encode()).hexdigest()[:8], 16)


class _Loop:
    """Runs the steps; what it needs to go on after a kill lies in ``checkpoint/``."""

    def __init__(
        self, options: LoraTrainer, job: TrainingJob, model: _PeftModel, examples: list[Example], identity: str
    ) -> None:
        self.options, self.job, self.model, self.examples, self.identity = options, job, model, examples, identity
        lengths = [len(example.ids) for example in examples]
        self.buckets = bucket_lengths(lengths, options.shapes) if options.compile and options.shapes else []
        self.batches = [
            batch
            for epoch in range(options.epochs)
            for batch in epoch_batches(examples, options.batch_tokens, f"{job.seed}:{epoch}", self.buckets)
        ]
        self.weights = [p for p in model.parameters() if p.requires_grad]
        self.on_gpu = model.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(
            self.weights, lr=options.learning_rate, weight_decay=0.0, fused=self.on_gpu or None
        )
        self.curve = job.output / "loss.jsonl"
        self.checkpoint = job.output / "checkpoint"
        tokenizer = job.base.tokenizer
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        self.parts = 1  # into so many a batch is split where it does not fit into memory
        self.pending: list[tuple[int, torch.Tensor]] = []

    def run(self) -> dict[str, Any]:
        """Do the steps that are not done and return the figures of the training."""
        start = self._resume()
        began, tokens, total = monotonic(), 0, len(self.batches)
        self.job.progress(start, total, "")
        warm, warm_tokens = began, 0
        with Journal(self.curve) as journal, _layers_as(self.model, self.options):
            for step in range(start, total):
                batch = [self.examples[i] for i in self.batches[step]]
                self.pending.append((step, self._step(step, batch)))
                tokens += sum(len(example.ids) for example in batch)
                due = (step + 1) % self.options.checkpoint_every == 0 and step + 1 < total
                # A GPU is asked for a loss one step late, when it is busy with the next: nobody waits for anybody.
                self._tell(journal, 0 if due or step + 1 == total or not self.on_gpu else 1)
                if due:
                    self._save_checkpoint(step + 1)
                if step + 1 == start + max(1, (total - start) // 3):
                    warm, warm_tokens = monotonic(), tokens
        seconds, steady = monotonic() - began, monotonic() - warm
        return {
            "steps": total,
            "resumed_at": start,
            "seconds": round(seconds, 1),
            "tokens_per_second": round(tokens / seconds, 1) if seconds else 0.0,
            "steady_tokens_per_second": round((tokens - warm_tokens) / steady, 1) if tokens > warm_tokens else 0.0,
            "trainable_parameters": sum(p.numel() for p in self.weights),
            "peak_memory_gb": _peak_memory(self.model.device),
            "batch_parts": self.parts,
        }

    def _tell(self, journal: Journal, left: int) -> None:
        """Write down the losses of all steps but the last ``left``; one that is no number ends the training."""
        while len(self.pending) > left:
            step, loss = self.pending.pop(0)
            value = float(loss)
            if not isfinite(value):
                numbers = [self.examples[i].number for i in self.batches[step][:8]]
                raise CamelBellError(
                    f"the loss is {value} at step {step + 1} (of the examples {numbers})",
                    "lower learning_rate; the last checkpoint is kept",
                )
            journal.append({"step": step + 1, "loss": value, "learning_rate": self._rate(step)})
            self.job.progress(step + 1, len(self.batches), f"loss {value:.2f}")

    def _rate(self, step: int) -> float:
        """Return the learning rate of a step: linear warm-up, then a cosine to a tenth."""
        total = len(self.batches)
        peak: float = self.options.learning_rate
        warm = max(1, int(total * self.options.warmup))
        if step < warm:
            return peak * (step + 1) / warm
        done = (step - warm) / max(1, total - warm)
        return peak * (0.1 + 0.45 * (1 + cos(pi * done)))

    def _step(self, step: int, batch: list[Example]) -> torch.Tensor:
        """Do one step and return its loss; a batch that does not fit into memory is done in parts from then on."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(step)
        while True:
            try:
                loss = self._gradients(step, batch)
                break
            except torch.OutOfMemoryError as error:
                self._halve(step, batch, error)
        torch.nn.utils.clip_grad_norm_(self.weights, self.options.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss

    def _gradients(self, step: int, batch: list[Example]) -> torch.Tensor:
        """Add up the gradients of a batch's mean loss, part by part, and return the loss."""
        torch.manual_seed(_number(self.job.seed) + step)  # a base with dropout draws the same after a kill
        longest = max(len(example.ids) for example in batch)
        width = padded_length(longest, self.buckets) if self.buckets else -(-longest // 8) * 8 if self.on_gpu else 0
        answers = sum(len(example.ids) - max(example.prefix, 1) for example in batch)
        size = -(-len(batch) // self.parts)
        whole = torch.zeros((), device=self.model.device)
        for start in range(0, len(batch), size):
            rows = batch[start : start + size]
            with _compiled_if(not self.buckets or len(rows) == self.options.batch_tokens // width):
                total, _ = answer_loss(self.model, collate(rows, self.pad, self.model.device, width))
                loss = total / answers
                loss.backward()
            whole += loss.detach()
        return whole

    def _halve(self, step: int, batch: list[Example], error: BaseException) -> None:
        if self.parts >= len(batch):
            raise CamelBellError(
                f"there is not enough memory for an example of {max(len(e.ids) for e in batch)} tokens",
                "set recompute: true or quantize: 4bit, or lower max_length",
            ) from error
        self.parts *= 2
        self.optimizer.zero_grad(set_to_none=True)
        if self.on_gpu:
            torch.cuda.empty_cache()
        self.job.progress(step, len(self.batches), f"not enough memory: batches are done in {self.parts} parts")

    def _save_checkpoint(self, step: int) -> None:
        draft = self.checkpoint.with_name("checkpoint.new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        state = {"adapter": _adapter_weights(self.model), "optimizer": self.optimizer.state_dict()}
        torch.save(state, draft / "state.pt")
        write_json(draft / "step.json", {"step": step, "identity": self.identity})
        old = self.checkpoint.with_name("checkpoint.old")
        shutil.rmtree(old, ignore_errors=True)
        if self.checkpoint.exists():
            os.replace(self.checkpoint, old)
        os.replace(draft, self.checkpoint)
        shutil.rmtree(old, ignore_errors=True)

    def _resume(self) -> int:
        """Load the checkpoint of exactly this job, if there is one, and return the step to go on with."""
        for folder in (self.checkpoint, self.checkpoint.with_name("checkpoint.old")):
            try:
                saved = json.loads((folder / "step.json").read_text(encoding="utf-8"))
                if saved["identity"] != self.identity:
                    continue
                state = torch.load(folder / "state.pt", weights_only=True)
            except (OSError, ValueError, EOFError, RuntimeError, UnpicklingError):
                continue  # torn when the machine went down
            set_peft_model_state_dict(self.model, state["adapter"])
            self.optimizer.load_state_dict(state["optimizer"])
            step = int(saved["step"])
            write_rows(self.curve, [row for _, row in read_rows(self.curve) if row["step"] <= step])
            return step
        self.job.output.mkdir(parents=True, exist_ok=True)
        self.curve.unlink(missing_ok=True)
        return 0


@contextmanager
def _layers_as(model: _PeftModel, options: LoraTrainer) -> Iterator[None]:
    """Compile the layers of a model, or let them keep no activations, as the options say, while the context lasts."""
    base = model.get_base_model()
    blocks = max((m for m in base.modules() if isinstance(m, torch.nn.ModuleList)), key=len, default=None)
    # The input of the first block needs no gradient: it would be compiled a second time, for itself alone.
    layers = list(blocks)[1:] if blocks is not None else []
    if options.recompute:
        base.gradient_checkpointing_enable({"use_reentrant": False})
        base.enable_input_require_grads()
    if options.compile:
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 4 * options.shapes + 8)
        for layer in layers:
            layer.compile(dynamic=not options.shapes)
    try:
        yield
    finally:
        for layer in layers if options.compile else ():
            layer._compiled_call_impl = None
        if options.recompute:
            base.gradient_checkpointing_disable()
            base.disable_input_require_grads()


@contextmanager
def _compiled_if(compiled: bool) -> Iterator[None]:
    """Use compiled code, or run what has another shape than it was compiled for as it is."""
    if compiled:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def _peak_memory(device: torch.device) -> float:
    """Return the most memory that the process, or the GPU, held so far, in 10^9 bytes."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e9, 2)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kibibytes elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 2)


def _adapter_weights(model: _PeftModel) -> dict[str, torch.Tensor]:
    # The embeddings are frozen: saying so spares peft a look at the hub for the base model.
    weights: dict[str, torch.Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
    return weights


def _mean_loss(model: Any, examples: Sequence[Example], job: TrainingJob) -> float:
    """Return the mean loss of an answer token over the examples, full vocabulary."""
    pad = job.base.tokenizer.pad_token_id or 0
    total, count = 0.0, 0
    model.eval()
    with torch.no_grad():
        for start in range(0, len(examples), 8):
            loss, tokens = answer_loss(model, collate(examples[start : start + 8], pad, model.device))
            total, count = total + float(loss), count + tokens
    model.train()
    return total / max(1, count)


def _save(job: TrainingJob, model: Any, report: dict[str, Any]) -> None:
    """Write the PEFT folder, its fingerprint, the model card and the loss plot; the report comes last."""
    model.eval()
    (job.output / "report.json").unlink(missing_ok=True)
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in weights:
        parameter.data = parameter.data.to(torch.bfloat16)
    model.save_pretrained(str(job.output), safe_serialization=True, save_embedding_layers=False)
    for parameter in weights:
        parameter.data = parameter.data.float()  # as peft opens it again
    losses = [(row["step"], row["loss"]) for _, row in read_rows(job.output / "loss.jsonl")]
    plot_losses(losses, job.output / "loss.png", job.character)
    more = {"character": job.character, "license": job.base.license}
    write_fingerprint(job.output, job.base, job.layout, model, more)
    write_text(job.output / "README.md", model_card(job, report, losses))
    write_json(job.output / "report.json", report)
    for name in ("checkpoint", "checkpoint.old", "checkpoint.new"):
        shutil.rmtree(job.output / name, ignore_errors=True)
