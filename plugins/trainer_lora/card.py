"""What lies beside an adapter for people: the model card and the plot of the loss."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from camelbell_core.roles import TrainingJob

_TERMS = {
    "gemma": "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms. "
    "They bind what is built on it, this adapter too."
}


def plot_losses(losses: Sequence[tuple[int, float]], file: Path, title: str) -> None:
    """Draw the loss of each step and its running mean as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    steps, values = [step for step, _ in losses], [value for _, value in losses]
    axes.plot(steps, values, color="#b9c6d8", linewidth=1, label="step")
    axes.plot(steps, _running_mean(values), color="#1f4e8c", linewidth=2, label="running mean")
    axes.set_xlabel("step")
    axes.set_ylabel("cross-entropy per answer token, nats")
    axes.set_title(f"{title}: training loss")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(file)


def _running_mean(values: Sequence[float], weight: float = 0.9) -> list[float]:
    means: list[float] = []
    for value in values:
        means.append(weight * means[-1] + (1 - weight) * value if means else value)
    return means


def model_card(job: TrainingJob, report: dict[str, Any], losses: Sequence[tuple[int, float]]) -> str:
    """Return the README.md of an adapter, with the front matter that model hubs read."""
    front = {
        "library_name": "peft",
        "base_model": job.base.name,
        "base_model_relation": "adapter",
        "license": job.base.license or "other",
        "language": list(job.describe.get("languages", [])),
        "pipeline_tag": "text-generation",
        "tags": ["lora", "role-play", "camelbell"],
    }
    options = report["options"]
    last = losses[-1][1] if losses else float("nan")
    held_out = report["held_out_loss"]
    terms = _TERMS.get(job.base.license, "")
    lines = [
        "---",
        yaml.safe_dump(front, allow_unicode=True, sort_keys=False).strip(),
        "---",
        "",
        f"# {job.describe.get('title', job.character)} on {job.base.name}",
        "",
        f"A LoRA adapter (r={options['r']}, alpha={options['alpha']}) trained by CamelBell for the character "
        f"`{job.character}`. It is meant for CamelBell's prompt layout `{job.layout.name}`: `camelbell.json` holds the "
        "fingerprint that is checked when it is loaded.",
        "",
        f"- examples: {report['examples']} ({report['held_out']} held out), {options['epochs']} epochs, {report['steps']} steps",
        f"- last loss {last:.3f}"
        + (f", held-out loss {held_out:.3f}" if held_out is not None else "")
        + " nats a token",
        f"- {report['seconds']:.0f} s on {report['device']} in {report['dtype']}, {report['tokens_per_second']:.0f} tokens a second",
        "",
        "![training loss](loss.png)",
        "",
        "It speaks as a character and can be wrong; numbers on how often stand in the project's README.",
    ]
    return "\n".join([*lines, *(["", terms] if terms else []), ""])
