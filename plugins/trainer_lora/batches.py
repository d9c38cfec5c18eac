"""From prompts and answers to batches of token ids of like length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from camelbell_core.prompts import Layout, Prompt


@dataclass(frozen=True, slots=True)
class Example:
    """The ids of a prompt and its answer; the first ``prefix`` of them take no loss.

    ``number`` is its place among the examples of the job, from 1.
    """

    ids: list[int]
    prefix: int
    number: int = 0


def encode(
    examples: Sequence[tuple[Prompt, str]], layout: Layout, max_length: int
) -> tuple[list[Example], dict[str, int]]:
    """Return the examples as ids and counts of what was cut or left out.

    A prompt too long loses history and facts, never the answer; an answer that does not fit is left out.
    """
    encoded, cut, dropped = [], 0, 0
    for number, (prompt, text) in enumerate(examples, 1):
        answer = layout.answer(text, prompt.language)
        room = max_length - len(answer)
        whole = layout.prefix(prompt)
        if room < len(layout.prefix(Prompt(prompt.language, prompt.persona, prompt.question))):
            dropped += 1
            continue
        prefix = whole if len(whole) <= room else layout.fit(prompt, room)
        cut += len(prefix) < len(whole)
        encoded.append(Example([*prefix, *answer], len(prefix), number))
    return encoded, {"examples": len(encoded), "cut": cut, "too_long": dropped}


def epoch_batches(examples: Sequence[Example], batch_tokens: int, seed: str) -> list[list[int]]:
    """Return the numbers of the examples of each batch, in an order that the seed decides.

    Neighbours in length share a batch of at most ``batch_tokens`` tokens, padding counted; an example
    longer than that is a batch of its own.
    """
    rng = Random(seed)
    order = list(range(len(examples)))
    rng.shuffle(order)
    order.sort(key=lambda i: len(examples[i].ids))  # stable: equal lengths stay shuffled
    batches: list[list[int]] = []
    for i in order:
        fits = batches and (len(batches[-1]) + 1) * len(examples[i].ids) <= batch_tokens
        batches[-1].append(i) if fits else batches.append([i])
    rng.shuffle(batches)
    return batches


def collate(examples: Sequence[Example], pad: int, device: Any) -> dict[str, Any]:
    """Return a batch as tensors, padded on the right."""
    import torch

    longest = max(len(example.ids) for example in examples)
    ids = torch.full((len(examples), longest), pad, dtype=torch.long)
    mask = torch.zeros((len(examples), longest), dtype=torch.long)
    labels = torch.full((len(examples), longest), -100, dtype=torch.long)
    for row, example in enumerate(examples):
        length = len(example.ids)
        ids[row, :length] = torch.tensor(example.ids)
        mask[row, :length] = 1
        labels[row, example.prefix : length] = ids[row, example.prefix : length]
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device), "labels": labels.to(device)}
