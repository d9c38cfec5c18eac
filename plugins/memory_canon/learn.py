"""Training the retriever: every known wording is drawn to its fact and away from all other facts.

Cross-entropy over all facts (InfoNCE with the whole canon as negatives), in torch, on a processor; some questions
are held out, to fit how index and retriever are mixed and what their score is worth.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from math import log
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from camelbell_core.character import Character
from camelbell_core.errors import CamelBellError
from camelbell_plugins.memory_canon import _BARE, CanonMemory, fact_features
from camelbell_plugins.memory_canon.retriever import Retriever
from camelbell_plugins.memory_canon.words import Words

_DIMENSIONS = 128
_BATCH = 2048
_CANDIDATES = 40  # facts that a held-out question is ranked among
_HELD_OUT = 1500  # questions, at most a tenth
_DROPPED = 0.15  # the share of a question's features that is left out at each step
_UNKNOWN = 0.25  # how often people ask for what the canon does not hold, against what it does
_FEWEST = 2  # a feature that stands in fewer texts is left out


class _Towers(torch.nn.Module):
    def __init__(self, frequencies: Sequence[int], texts: int) -> None:
        super().__init__()
        rarity = torch.tensor([log(log(1 + texts / frequency)) for frequency in frequencies])
        self.vectors = torch.nn.EmbeddingBag(len(frequencies), _DIMENSIONS, mode="sum")
        torch.nn.init.normal_(self.vectors.weight, std=_DIMENSIONS**-0.5)
        self.in_question = torch.nn.Parameter(rarity.clone())
        self.in_fact = torch.nn.Parameter(rarity.clone())
        self.heat = torch.nn.Parameter(torch.tensor(3.0))

    def forward(self, bags: tuple[torch.Tensor, torch.Tensor], weights: torch.Tensor) -> torch.Tensor:
        numbers, starts = bags
        return F.normalize(self.vectors(numbers, starts, per_sample_weights=torch.exp(weights[numbers])), dim=-1)


def learn(character: Character, file: Path, epochs: int, tick: Callable[[int, int, str], None]) -> str:
    """Train a retriever on the wordings of a character, write it, and return what it reached in words."""
    words = Words(character.canon, character.config.entity)
    facts = list(character.canon.facts.values())
    place = {fact.id: number for number, fact in enumerate(facts)}
    asked = [(ask, place[fact.id]) for fact in facts for asks in fact.ask.values() for ask in asks]
    asked += [(q.text, place[q.facts[0]]) for q in character.dialogues if q.facts and not q.history]
    asked = list(dict.fromkeys(asked))
    rng = Random(f"index:{character.name}")
    rng.shuffle(asked)
    # Held out are questions with one right fact at the end of the story: no ties, of which many tell the same.
    ties = {fact for question in character.canon.questions for fact in question.facts}
    plain = {place[fact.id] for fact in facts if fact.true_until is None and fact.id not in ties}
    held = min(_HELD_OUT, len(asked) // 10)
    held_out = [pair for pair in asked if pair[1] in plain][:held]
    if len(facts) < 2 or len(asked) < 20 or not held_out:
        raise CamelBellError(
            f"{character.name} has too few wordings to learn from: {len(asked)} questions for {len(facts)} facts, "
            f"{len(held_out)} of them to try it with",
            "its memory works without a retriever; write more facts and questions first",
        )
    seen = [pair for pair in asked if pair not in set(held_out)]
    told = [fact_features(words, fact) for fact in facts]
    trained = _train(told, [(words.features(text), number) for text, number in seen], epochs, rng, tick)
    weights, slope, offset, shares = _fit(character, trained, held_out)
    retriever = _packed(*trained, weights, slope, offset)
    retriever.save(file)
    return (
        f"trained on {len(seen)} questions for {len(facts)} facts, {len(retriever.vocabulary)} words; of {len(held_out)} held "
        f"out, the right fact is first for {shares[0]:.3f} and among six for {shares[1]:.3f}: {file}"
    )


def _train(
    told: Sequence[Sequence[str]], asked: Sequence[tuple[Sequence[str], int]], epochs: int, rng: Random,
    tick: Callable[[int, int, str], None],
) -> tuple[dict[str, int], _Towers]:  # fmt: skip
    torch.manual_seed(0)
    counts = Counter(feature for features, _ in asked for feature in features)
    counts.update(feature for features in told for feature in features)
    kept = sorted(feature for feature, count in counts.items() if count >= _FEWEST)
    vocabulary = {feature: number for number, feature in enumerate(kept)}
    towers = _Towers([counts[feature] for feature in vocabulary], len(asked) + len(told))
    weights = [towers.in_question, towers.in_fact, towers.heat]
    optimizer = torch.optim.Adam([{"params": [towers.vectors.weight], "lr": 3e-3}, {"params": weights, "lr": 1e-2}])
    numbers = [[vocabulary[f] for f in features if f in vocabulary] for features, _ in asked]
    documents = _bags([[vocabulary[f] for f in features if f in vocabulary] for features in told])
    steps = epochs * -(-len(asked) // _BATCH)
    rise = 0.1 if steps != 10 else 0.2  # torch divides by the steps of the rise less one
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [3e-3, 1e-2], total_steps=steps, pct_start=rise)
    done = 0
    for _ in range(epochs):
        order = list(range(len(asked)))
        rng.shuffle(order)
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            bags = _bags([[n for n in numbers[i] if rng.random() > _DROPPED] for i in batch])
            questions = towers(bags, towers.in_question)
            scores = torch.exp(towers.heat) * questions @ towers(documents, towers.in_fact).T
            loss = F.cross_entropy(scores, torch.tensor([asked[i][1] for i in batch]))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            done += 1
            tick(done, steps, f"loss {loss.item():.3f}")
    return vocabulary, towers


def _bags(lists: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    starts = np.cumsum([0, *(len(numbers) for numbers in lists)])[:-1]
    return torch.tensor([n for numbers in lists for n in numbers], dtype=torch.long), torch.tensor(starts)


def _packed(
    vocabulary: dict[str, int], towers: _Towers, weights: tuple[float, ...], slope: float, offset: float
) -> Retriever:
    vectors = towers.vectors.weight.detach().numpy()
    scales = np.abs(vectors).max(axis=1) / 127 + 1e-12
    return Retriever(
        vocabulary=vocabulary,
        vectors=np.rint(vectors / scales[:, None]).astype(np.int8),
        scales=scales.astype(np.float16).astype(np.float32),
        in_question=torch.exp(towers.in_question).detach().numpy().astype(np.float32),
        in_fact=torch.exp(towers.in_fact).detach().numpy().astype(np.float32),
        weights=weights,
        slope=slope,
        offset=offset,
    )


def _fit(
    character: Character, trained: tuple[dict[str, int], _Towers], held_out: Sequence[tuple[str, int]]
) -> tuple[tuple[float, ...], float, float, tuple[float, float]]:
    """Return the weights of ``Evidence`` that put the right fact first, and the curve of the first one's score.

    The last two numbers are how often the right fact comes first, and among six.
    """
    facts = list(character.canon.facts.values())
    memory = CanonMemory()
    memory.prepare(character, learned=False)
    memory.use(_packed(*trained, (1.0, 1.0, 1.0, 0.0), 1.0, 0.0))
    ended = {fact.id for fact in facts if fact.true_until is not None}
    tables: list[tuple[torch.Tensor, torch.Tensor]] = []
    for text, number in held_out:
        rows = [(e, other) for other, e in memory.evidence(text, unseen=True).items() if other not in ended]
        rows = sorted(rows, key=lambda row: -sum(row[0][:3]))[:_CANDIDATES]
        # A fact that says what the right one demands is right too.
        right = torch.tensor([_tells(character, facts[number], other) for _, other in rows])
        if rows:
            tables.append((torch.tensor([list(e) for e, _ in rows], dtype=torch.float64), right))
    weights = _ranking([table for table in tables if table[1].any()])
    ranks, points = [], []
    for evidence, right in tables:
        scores, order = torch.sort(evidence @ weights, descending=True)
        ranked = right[order].tolist()
        ranks.append(ranked.index(True) if True in ranked else 99)
        points.append((float(scores[0]), ranked[0], 1.0))
        # Were the right facts not in the canon, the next one would come first, and be wrong.
        if False in ranked:
            points.append((float(scores[ranked.index(False)]), False, _UNKNOWN))
    slope, offset = _logistic(points)
    if slope <= 0 or offset >= 0:  # too few to tell: what nothing speaks for is not likely
        slope, offset = _BARE[1] / float(weights[:3].sum()), _BARE[2]
    shares = float(np.mean([rank == 0 for rank in ranks])), float(np.mean([rank < 6 for rank in ranks]))
    return tuple(weights.tolist()), slope, offset, shares


def _ranking(tables: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Return the weights that make the right rows likeliest (softmax over the rows of each table)."""
    usual = torch.tensor([3.0, 8.0, 5.0, -2.0], dtype=torch.float64)
    weights = usual.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([weights], max_iter=100)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        losses = [
            torch.logsumexp(evidence @ weights, 0) - torch.logsumexp((evidence @ weights)[right], 0)
            for evidence, right in tables
        ]
        loss = torch.stack(losses).mean() + 1e-3 * weights.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    if tables:
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    # Too few questions can tell that what speaks for a fact counts against it.
    found: torch.Tensor = weights.detach() if bool((weights[:3] >= 0).all()) else usual
    # The scale is free: the index counts one.
    return found / found.abs().max()


def _tells(character: Character, asked: Any, other: str) -> bool:
    fact = character.canon.facts[other]
    return other == asked.id or (
        bool(asked.answer) and not character.canon.missing(asked, " ".join(fact.text.values()))
    )


def _logistic(points: Sequence[tuple[float, bool, float]]) -> tuple[float, float]:
    """Return slope and offset of the curve from score to the probability of being right, by maximum likelihood."""
    x = torch.tensor([score for score, _, _ in points], dtype=torch.float64)
    y = torch.tensor([float(right) for _, right, _ in points], dtype=torch.float64)
    weight = torch.tensor([weight for _, _, weight in points], dtype=torch.float64)
    line = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([line], max_iter=200)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(line[0] * x + line[1], y, weight) + 1e-4 * line.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    slope, offset = line.detach().tolist()
    return float(slope), float(offset)
