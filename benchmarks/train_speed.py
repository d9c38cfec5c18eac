"""The LoRA training of 2023 in several ways, side by side in one run, against the speed of a large matrix product.

    python benchmarks/train_speed.py                      # full size on a GPU, in about eight minutes
    python benchmarks/train_speed.py --model chatglm --budget 240
    python benchmarks/train_speed.py --tiny               # a few layers, on any machine: does it run at all

Models have random weights. The data are 1,500 examples of 167 tokens on average, 3 epochs, LoRA r=8 on query, key and
value. Slow ways are measured on some steps and reckoned up to the whole job; ways of ours run the trainer as it is, from
the loaded base to the saved adapter, compiling counted. Writes train_speed.json and train_speed.md into --out.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import LoraLayer
from torch import nn

from camelbell_core.prompts import Layout, Prompt
from camelbell_core.roles import TrainableBase, TrainingJob
from camelbell_plugins.base_chatglm.configuration import ChatGLMConfig
from camelbell_plugins.base_chatglm.modeling import ChatGLMForConditionalGeneration
from camelbell_plugins.trainer_lora import LoraTrainer, loop
from camelbell_plugins.trainer_lora.batches import Example, encode, epoch_batches

EPOCHS, EXAMPLES = 3, 1500
BEGAN = monotonic()


class Words:
    """Stands for a tokenizer: texts are the numbers of their tokens."""

    bos_token_id, eos_token_id, pad_token_id = 4, 5, 3
    gmask_token_id = 6

    def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
        """Return the numbers of a text, or some for a text without numbers."""
        return {"input_ids": [int(word) for word in text.split() if word.isdigit()] or [7, 8]}

    def __len__(self) -> int:
        return 30000


class Numbers(Layout):
    """Lays numbers out as ChatGLM wants them; for other models these are tokens like any others."""

    name = "numbers"

    def prefix(self, prompt: Prompt) -> list[int]:
        """Return the question's numbers with [gMASK] <sop> behind them."""
        return [*self.tokenizer(prompt.question)["input_ids"], 6, 4]

    def answer(self, text: str, language: str) -> list[int]:
        """Return the answer's numbers and the end."""
        return [*self.tokenizer(text)["input_ids"], 5]

    @property
    def end_ids(self) -> list[int]:
        """The end."""
        return [5]


def make_examples(count: int, vocabulary: int) -> list[tuple[Prompt, str]]:
    """Return examples of 167 tokens on average whose words are spread as in a language (Zipf)."""
    rng = Random(0)
    weights = [1 / (rank + 10) for rank in range(min(6000, vocabulary - 10))]
    words = range(10, 10 + len(weights))
    rows = []
    for _ in range(count):
        asked = max(8, min(80, int(rng.lognormvariate(3.35, 0.35))))
        told = max(16, min(320, int(rng.lognormvariate(4.78, 0.42))))
        text = " ".join(map(str, rng.choices(words, weights, k=asked + told)))
        first, rest = text.split(" ", asked)[:asked], text.split(" ", asked)[asked]
        rows.append((Prompt("en", "", " ".join(first)), rest))
    return rows


def make_model(kind: str, tiny: bool, device: str) -> Any:
    """Return a model of a kind with random weights in bfloat16, made where it stays."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    ids = {"bos_token_id": 4, "eos_token_id": 5, "pad_token_id": 3}
    try:
        with torch.device(device):
            if kind == "chatglm":
                small = {"hidden_size": 64, "num_layers": 2, "num_attention_heads": 4, "inner_hidden_size": 128}
                small |= {"vocab_size": 8000}
                more = small if tiny else {}
                model = ChatGLMForConditionalGeneration(ChatGLMConfig(gmask_token_id=6, mask_token_id=7, **ids, **more))
            else:
                from transformers import LlamaConfig, LlamaForCausalLM

                small = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 8000}
                small |= {"intermediate_size": 128}
                model = LlamaForCausalLM(LlamaConfig(**ids, **(small if tiny else {})))
    finally:
        torch.set_default_dtype(before)
    model.requires_grad_(False)
    return model.eval()


def unwrap(model: nn.Module) -> None:
    """Take the adapters off a model."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LoraLayer):
                setattr(parent, name, child.base_layer)
    for name in ("peft_config", "_hf_peft_config_loaded"):
        vars(model).pop(name, None)


def settle(device: str) -> None:
    """Wait for the GPU and start counting its memory anew."""
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def matmul_rate(device: str) -> float:
    """Return the operations a second of a large bfloat16 matrix product."""
    n = 8192 if device == "cuda" else 1024
    a, b = (torch.randn(n, n, dtype=torch.bfloat16, device=device) for _ in range(2))
    best = 0.0
    for _ in range(5):
        repeats = 20 if device == "cuda" else 2
        settle(device)
        began = monotonic()
        for _ in range(repeats):
            a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * n**3 * repeats / (monotonic() - began))
    return best


class Bench:
    """A model, the job, and the rows of the table."""

    def __init__(self, kind: str, model: Any, device: str, rate: float, count: int, budget: float) -> None:
        self.kind, self.model, self.device, self.rate, self.budget = kind, model, device, rate, budget
        self.targets = ("query_key_value",) if kind == "chatglm" else ("q_proj", "k_proj", "v_proj")
        self.parameters = sum(p.numel() for p in model.parameters())
        self.words = make_examples(count, model.config.vocab_size)
        self.layout = Numbers(Words())
        self.encoded, _ = encode(self.words, self.layout, 1024)
        self.tokens = EPOCHS * sum(len(e.ids) for e in self.encoded)
        self.rows: list[dict[str, Any]] = []
        self.curves: dict[str, list[float]] = {}

    def add(self, way: str, run: Callable[[], dict[str, Any]]) -> None:
        """Measure a way, or note why it cannot be; the adapters are taken off again."""
        if monotonic() - BEGAN > self.budget:
            self.rows.append({"model": self.kind, "way": way, "error": "no time left"})
            return
        settle(self.device)
        began = monotonic()
        try:
            row = run()
            if self.device == "cuda":
                row["peak_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 1)
            steady = row["tokens_per_second"]
            row["of_matmul_rate"] = round(4 * self.parameters * steady / self.rate, 4)
        except Exception as error:
            traceback.print_exc()
            row = {"error": f"{type(error).__name__}: {error}"[:400]}
        unwrap(self.model)
        self.model.eval()
        self.rows.append({"model": self.kind, "way": way, **row, "measuring_s": round(monotonic() - began, 1)})
        print(json.dumps(self.rows[-1], ensure_ascii=False), flush=True)

    def plain(
        self, batches: Sequence[Sequence[Example]], seconds: float, recompute: bool = False, curve: str = ""
    ) -> dict[str, Any]:
        """Run transformers and peft as they are: a padding mask, all logits, adapters in float32; for some seconds."""
        settings = LoraTrainer(r=8, alpha=32, targets=self.targets, epochs=EPOCHS)
        if curve:
            tuned = loop._adapted(settings, self.job(Path(tempfile.mkdtemp())))
        else:
            tuned = get_peft_model(
                self.model, LoraConfig(r=8, lora_alpha=32, target_modules=list(self.targets), task_type="CAUSAL_LM")
            )
        tuned.train()
        if recompute:
            tuned.gradient_checkpointing_enable()
            tuned.enable_input_require_grads()
        weights = [p for p in tuned.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=1e-4, weight_decay=0.0)
        rates = self.curves[f"rates {curve}"] if curve else []
        batches = batches[: len(rates)] if curve else batches
        losses, tokens, began = [], 0, monotonic()
        warm_up = 0 if len(batches) < 6 else 3
        for number, rows in enumerate(batches):
            if number == warm_up:
                settle(self.device)
                began, tokens = monotonic(), 0
            longest = max(len(e.ids) for e in rows)
            ids, mask, labels = (torch.full((len(rows), longest), fill) for fill in (3, 0, -100))
            for i, e in enumerate(rows):
                ids[i, : len(e.ids)] = torch.tensor(e.ids)
                mask[i, : len(e.ids)] = 1
                labels[i, e.prefix : len(e.ids)] = torch.tensor(e.ids[e.prefix :])
            ids, mask, labels = (x.to(self.device) for x in (ids, mask, labels))
            for group in optimizer.param_groups if rates else ():
                group["lr"] = rates[number]
            loss = tuned(input_ids=ids, attention_mask=mask, labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.detach())
            tokens += sum(len(e.ids) for e in rows)
            if number > warm_up + 2 and monotonic() - began > seconds:
                break
        settle(self.device)
        speed = tokens / (monotonic() - began)
        if recompute:
            tuned.get_base_model().gradient_checkpointing_disable()
            tuned.disable_input_require_grads()
        self.curves[f"plain {curve}"] = [float(x) for x in losses]
        return {"tokens_per_second": round(speed), "reckoned_s": round(self.tokens / speed, 1), "steps": len(losses)}

    def job(self, output: Path, name: str = "bench") -> TrainingJob:
        """Return the job as the trainer gets it."""
        base = TrainableBase(name=self.kind, model=self.model, tokenizer=self.layout.tokenizer, fingerprint=name)
        return TrainingJob(
            character="bench", examples=self.words, base=base, layout=self.layout, output=output, seed="0:bench:train"
        )

    def ours(self, name: str, **options: Any) -> dict[str, Any]:
        """Run the trainer, from the loaded base to the saved adapter."""
        known = {"r": 8, "alpha": 32, "targets": self.targets, "epochs": EPOCHS, "learning_rate": 1e-4}
        known |= {"held_out": 0.0, "max_length": 1024, "checkpoint_every": 1000}
        output = Path(tempfile.mkdtemp()) / "out"
        began = monotonic()
        settings = LoraTrainer(**{**known, **options})
        report = settings.train(self.job(output, name))
        settle_s = monotonic() - began
        self.curves[name] = [row["loss"] for row in _rows(output)]
        self.curves[f"rates {name}"] = [row["learning_rate"] for row in _rows(output)]
        speed = report["steady_tokens_per_second"]
        share = settings.epochs / EPOCHS
        row = {
            "tokens_per_second": round(speed),
            "reckoned_s": round(self.tokens / speed, 1),
            "steps": report["steps"],
            "trained_s": report["seconds"],
            "batch_parts": report["batch_parts"],
        }
        return {
            **row,
            **({"wall_s": round(settle_s, 1)} if share == 1 else {f"wall_s_of_{settings.epochs}": round(settle_s, 1)}),
        }

    def ours_batches(self, batch_tokens: int) -> list[list[Example]]:
        """Return the batches of the trainer in its order."""
        order = list(self.encoded)
        Random("0:bench:train:held-out").shuffle(order)
        epochs = (epoch_batches(order, batch_tokens, f"0:bench:train:{epoch}") for epoch in range(EPOCHS))
        return [[order[i] for i in batch] for epoch in epochs for batch in epoch]

    def losses_agree(self, ours: str) -> dict[str, Any]:
        """Compare the losses of a run of ours with the plain loop's on the same batches, step by step."""
        mine, plain = self.curves[ours], self.curves[f"plain {ours}"]
        off = [abs(a - b) for a, b in zip(mine, plain, strict=False)]
        return {"steps": len(off), "mean": sum(off) / len(off), "most": max(off), "first": plain[0], "last": plain[-1]}


def _rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "loss.jsonl").read_text(encoding="utf-8").splitlines()]


def with_nf4(model: Any) -> None:
    """Put bitsandbytes' NF4 layers in place of the linear layers of the blocks."""
    import bitsandbytes as bnb

    layers = max((m for m in model.modules() if isinstance(m, nn.ModuleList)), key=len)
    for parent in list(layers.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                made = bnb.nn.Linear4bit(
                    child.in_features,
                    child.out_features,
                    bias=child.bias is not None,
                    compute_dtype=torch.bfloat16,
                    quant_type="nf4",
                )
                made.weight = bnb.nn.Params4bit(child.weight.data.cpu(), requires_grad=False, quant_type="nf4")
                if child.bias is not None:
                    made.bias = child.bias
                setattr(parent, name, made.to(child.weight.device))
    model.is_loaded_in_4bit = True


def with_liger(model: Any) -> None:
    """Put Liger's kernels for norms, rotary positions and gated units in place."""
    from liger_kernel.transformers import _apply_liger_kernel_to_instance

    _apply_liger_kernel_to_instance(model=model, fused_linear_cross_entropy=False, cross_entropy=False)


def measure(kind: str, device: str, rate: float, tiny: bool, budget: float, results: dict[str, Any]) -> None:
    """Measure all ways on a model of a kind."""
    model = make_model(kind, tiny, device)
    bench = Bench(kind, model, device, rate, 60 if tiny else EXAMPLES, budget)
    big, small = (600, 300) if tiny else (8192, 4096)
    few = 1.0 if tiny else 6.0
    alone = [[e] for e in bench.encoded]
    Random(0).shuffle(alone)
    ordered = sorted(bench.encoded, key=lambda e: len(e.ids))
    sixteen = [ordered[i : i + 16] for i in range(0, len(ordered), 16)]
    Random(0).shuffle(sixteen)
    told = {
        "parameters": bench.parameters,
        "tokens": bench.tokens,
        "floor_s": round(4 * bench.parameters * bench.tokens / rate, 1),
    }
    results["models"][kind] = told
    print(kind, json.dumps(told), flush=True)
    whole = kind == "chatglm"
    epochs = EPOCHS if whole else 1
    bench.add(f"ours, {big} tokens", lambda: bench.ours("ours", batch_tokens=big, epochs=epochs))
    bench.add(
        "plain transformers + peft on our batches", lambda: bench.plain(bench.ours_batches(big), few, curve="ours")
    )
    bench.add("batch 16, length-sorted, padding mask", lambda: bench.plain(sixteen, few))
    bench.add("batch 1", lambda: bench.plain(alone, few))
    bench.add("the 2023 way: batch 1, gradient checkpointing", lambda: bench.plain(alone, few, recompute=True))
    compiled = {"batch_tokens": big, "compile": True}
    bench.add(f"ours, compiled, {big} tokens", lambda: bench.ours("compiled", **compiled, epochs=max(2, epochs)))
    if not whole:
        bench.add(f"ours, {small} tokens", lambda: bench.ours("small", batch_tokens=small, epochs=1))
    if "ours" in bench.curves and "plain ours" in bench.curves:
        told["losses against the plain loop's"] = bench.losses_agree("ours")
    if not whole:
        try:
            bench.add(
                f"ours, compiled for 4 lengths, {big} tokens",
                lambda: bench.ours("fixed", **compiled, shapes=4, epochs=2),
            )
            with_liger(model)
            bench.add(f"ours, Liger kernels, {big} tokens", lambda: bench.ours("liger", batch_tokens=big, epochs=1))
        except Exception as error:
            bench.rows.append({"model": kind, "way": "ours, Liger kernels", "error": repr(error)[:300]})
    elif find_spec("bitsandbytes") is not None:
        try:
            with_nf4(model)
            bench.add(f"ours, NF4, {big // 4} tokens", lambda: bench.ours("nf4", batch_tokens=big // 4, epochs=1))
        except Exception as error:
            bench.rows.append({"model": kind, "way": "ours, NF4", "error": repr(error)[:300]})
    results["rows"] += bench.rows
    results["curves"][kind] = {name: curve[:60] for name, curve in bench.curves.items()}


def table(results: dict[str, Any]) -> str:
    """Return the rows as a table of Markdown."""
    lines = [
        f"{results['machine']}, torch {results['torch']}, transformers {results['transformers']}; "
        f"a large bfloat16 matrix product runs at {results['matmul_tflops']:.0f} TFLOP/s",
        "",
        "| model | way | tokens/s | 3 epochs, steady | from loaded base to saved adapter | of the matrix-product rate | peak GB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in results["rows"]:
        if "error" in row:
            lines.append(f"| {row['model']} | {row['way']} | {row['error']} | | | | |")
            continue
        wall = f"{row['wall_s']:.0f} s" if "wall_s" in row else ""
        lines.append(
            f"| {row['model']} | {row['way']} | {row['tokens_per_second']:,} | {row['reckoned_s']:,.0f} s | {wall} | "
            f"{row['of_matmul_rate']:.1%} | {row.get('peak_gb', '')} |"
        )
    for kind, told in results["models"].items():
        lines += ["", f"{kind}: {json.dumps(told)}"]
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", choices=["chatglm", "llama"], help="default: both")
    parser.add_argument("--tiny", action="store_true", help="tiny models, to see that all ways run")
    parser.add_argument("--budget", type=float, default=430.0, help="seconds after which no further way is begun")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")))
    given = parser.parse_args()
    import transformers

    if find_spec("matplotlib") is None:  # the curve's picture is no part of what is measured
        loop.plot_losses = lambda *more: None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rate = matmul_rate(device)
    results: dict[str, Any] = {
        "machine": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "matmul_tflops": round(rate / 1e12, 2),
        "models": {},
        "rows": [],
        "curves": {},
    }
    print(json.dumps(results), flush=True)
    given.out.mkdir(parents=True, exist_ok=True)
    for kind in given.model or ["chatglm", "llama"]:
        try:
            measure(kind, device, rate, given.tiny, given.budget, results)
        except Exception as error:
            traceback.print_exc()
            results["rows"].append({"model": kind, "way": "all", "error": repr(error)[:400]})
        results["seconds"] = round(monotonic() - BEGAN, 1)
        (given.out / "train_speed.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
        (given.out / "train_speed.md").write_text(table(results), encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    sys.exit(main())
