"""From prompts and answers to batches of token ids of like length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
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


def bucket_lengths(lengths: Sequence[int], most: int) -> list[int]:
    """Return up to ``most`` lengths, multiples of 8, to which examples are padded so that least is padding.

    A compiler makes code for each shape: fewer shapes are less waiting, more of them less padding.
    """
    count = Counter(_up(length) for length in lengths)
    sizes = sorted(count)
    before = [0, *accumulate(count[size] for size in sizes)]

    @cache
    def best(last: int, buckets: int) -> tuple[int, tuple[int, ...]]:
        """Return the fewest tokens that hold all examples up to sizes[last], and the ends of their buckets."""
        end = sizes[last]
        options: list[tuple[int, tuple[int, ...]]] = [(before[last + 1] * end, (end,))]
        for split in range(last if buckets > 1 else 0):
            tokens, ends = best(split, buckets - 1)
            options.append((tokens + (before[last + 1] - before[split + 1]) * end, (*ends, end)))
        return min(options)

    return list(best(len(sizes) - 1, most)[1]) if sizes else []


def epoch_batches(
    examples: Sequence[Example], batch_tokens: int, seed: str, buckets: Sequence[int] = ()
) -> list[list[int]]:
    """Return the numbers of the examples of each batch, in an order that the seed decides.

    Neighbours in length share a batch of at most ``batch_tokens`` tokens, padding counted; an example
    longer than that is a batch of its own. With ``buckets`` all of a batch is padded to the end of one.
    """
    rng = Random(seed)
    order = list(range(len(examples)))
    rng.shuffle(order)
    order.sort(key=lambda i: len(examples[i].ids))  # stable: equal lengths stay shuffled
    batches: list[list[int]] = []
    shared = 0  # the padded length of the last batch
    for i in order:
        width = padded_length(len(examples[i].ids), buckets)
        fits = batches and (len(batches[-1]) + 1) * width <= batch_tokens and (not buckets or width == shared)
        batches[-1].append(i) if fits else batches.append([i])
        shared = width
    rng.shuffle(batches)
    return batches


def padded_length(length: int, buckets: Sequence[int] = ()) -> int:
    """Return the end of the bucket that a length falls into, or the length itself where there is none."""
    return next((end for end in buckets if end >= length), length)


def _up(length: int) -> int:
    return -(-length // 8) * 8


def collate(examples: Sequence[Example], pad: int, device: Any, width: int = 0) -> dict[str, Any]:
    """Return a batch as tensors, padded on the right to the longest example or to ``width``.

    ``targets`` are the answers' tokens one after the other, ``places`` where their predictions stand in the batch's
    hidden states, all rows in one: made here, so that a GPU need not be waited for to count them. Padding stands behind
    everything, and needs no attention mask with a causal model: what it sees nobody asks, and nothing sees it.
    """
    import torch

    longest = max(width, *(len(example.ids) for example in examples))
    ids = torch.full((len(examples), longest), pad, dtype=torch.long)
    places, targets = [], []
    for row, example in enumerate(examples):
        length = len(example.ids)
        ids[row, :length] = torch.tensor(example.ids)
        first = max(example.prefix, 1)
        places.append(torch.arange(first - 1, length - 1) + row * longest)
        targets.append(ids[row, first:length])
    batch = {"input_ids": ids, "places": torch.cat(places), "targets": torch.cat(targets)}
    if torch.device(device).type == "cuda":
        return {name: rows.pin_memory().to(device, non_blocking=True) for name, rows in batch.items()}
    return {name: rows.to(device) for name, rows in batch.items()}
