"""How recall grows with the canon: the median and the longest time of 200 questions, for canons of made-up facts.

    python benchmarks/memory_growth.py [FACTS ...]        (default: 3000 30000 300000 1000000)

Each fact is about one of a tenth as many people; a question is put in other words than the fact's own, with the
person's name and two of the rare words. The limits are 5 ms at 3,000 facts and 20 ms at 1,000,000.
"""

import sys
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from types import SimpleNamespace

from camelbell_core.canon import Canon
from camelbell_core.records import Entity, Fact
from camelbell_plugins.memory_canon import CanonMemory

SYLLABLES = [a + b for a in "bcdfghjklmnprstvwz" for b in ("a", "e", "i", "o", "u", "ai", "ei", "or", "un", "el")]
RELATIONS = ("owns", "teaches", "fears", "found", "lost", "hid", "wrote", "sold", "mended", "guards")
QUESTIONS = 200


def words(rng: Random, count: int, parts: int) -> list[str]:
    """Return made-up words."""
    return ["".join(rng.choice(SYLLABLES) for _ in range(parts)) for _ in range(count)]


def world(size: int, rng: Random) -> tuple[SimpleNamespace, list[tuple[str, str]]]:
    """Return a character with a canon of that size, and questions with the ids of the facts that they ask for."""
    names = dict.fromkeys(w.title() for w in words(rng, max(300, size // 10), 3))
    entities = {f"e{n}": Entity(f"e{n}", "person", {"en": name}) for n, name in enumerate(names)}
    ids, things = list(entities), words(rng, 20_000, 2)
    facts, asked = [], []
    for number in range(size):
        who, relation, thing, place = rng.choice(ids), rng.choice(RELATIONS), rng.choice(things), rng.choice(things)
        name = entities[who].names["en"]
        ask = f"What is it that {name} {relation} in {place}?"
        text = f"{name} {relation} the {thing} in {place}."
        facts.append(Fact(f"f{number}", (who,), {"en": text}, {}, {"en": (ask,)}, (thing,)))
        if number % max(1, size // QUESTIONS) == 0:
            asked.append((f"Tell me about {name} and the {thing}, please, the one in {place}", f"f{number}"))
    config = SimpleNamespace(entity="")
    character = SimpleNamespace(
        name=f"world{size}", canon=Canon(entities, facts), config=config, root=Path("nowhere"), dialogues=[]
    )
    return character, asked


def main(sizes: list[int]) -> None:
    """Print a line a size: seconds to build, milliseconds to recall, and how often the right fact came first."""
    print(
        f"{'facts':>10}{'build s':>10}{'open s':>9}{'median ms':>11}{'longest ms':>12}{'right first':>13}{'of limit':>10}"
    )
    for size in sizes:
        character, asked = world(size, Random(size))
        memory = CanonMemory()
        start = perf_counter()
        memory.prepare(character)  # type: ignore[arg-type]
        built = perf_counter() - start
        start = perf_counter()
        memory.prepare(character)  # type: ignore[arg-type]
        opened = perf_counter() - start
        times, right = [], 0
        for question, fact in asked:
            start = perf_counter()
            recalls = memory.recall(question, 6)
            times.append(perf_counter() - start)
            right += bool(recalls) and recalls[0].fact.id == fact
        limit = 5 if size <= 3000 else 20
        print(
            f"{size:>10}{built:>10.1f}{opened:>9.1f}{median(times) * 1000:>11.1f}{max(times) * 1000:>12.1f}"
            f"{right / len(asked):>13.3f}{median(times) * 1000 / limit:>10.2f}",
            flush=True,
        )


if __name__ == "__main__":
    import os

    with TemporaryDirectory() as home:
        os.environ["CAMELBELL_HOME"] = home
        main([int(size) for size in sys.argv[1:]] or [3_000, 30_000, 300_000, 1_000_000])
