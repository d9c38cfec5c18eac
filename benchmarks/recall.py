"""How often the memory brings the right fact to mind, and how well its score tells right from wrong.

    python benchmarks/recall.py harry_potter [QUIZ.jsonl]

A fact is taken as right when its own words satisfy the quiz item. Traps have no right fact.
"""

import sys
from pathlib import Path
from statistics import median
from time import perf_counter

from camelbell_core.character import data_dir, find_character
from camelbell_core.compose import compose, strange_names
from camelbell_core.evaluation import is_truthful, read_quiz
from camelbell_core.pipeline import find_quiz, open_run
from camelbell_core.prompts import remembered

DEPTHS = (1, 2, 4, 6, 10)


def main(name: str, quiz: str = "") -> None:
    """Print recall at each depth per kind and language, times, and what composing alone would score."""
    run = open_run(find_character(name), data_dir() / "runs" / name)
    items = read_quiz(Path(quiz)) if quiz else find_quiz(run.character)
    canon = run.character.canon
    times, groups, missed = [], {}, []
    memory = run.memory
    for item in items:
        at = canon.point(item.at) if item.at else None
        start = perf_counter()
        recalls = memory.recall(item.question, max(DEPTHS), at)
        times.append(perf_counter() - start)
        fits = [is_truthful(remembered(recall.fact, item.language), item) for recall in recalls]
        first = fits.index(True) + 1 if True in fits else 99
        alone = is_truthful(compose(run.character, item.language, item.question, recalls).text, item)
        top = recalls[0].score if recalls else 0.0
        groups.setdefault((item.kind, item.language), []).append((first, alone, top))
        if first > 4 and item.kind not in ("trap",):
            missed.append((item, top, strange_names(run.character, item.question)))
    print(
        f"{len(canon.facts)} facts; recall {median(times) * 1000:.1f} ms (median), {max(times) * 1000:.1f} ms (longest)"
    )
    print(f"{'kind':<16}{'n':>5}" + "".join(f"{'in ' + str(d):>8}" for d in DEPTHS) + f"{'composed':>10}{'score':>8}")
    for (kind, language), rows in sorted(groups.items()):
        shares = "".join(f"{sum(first <= d for first, _, _ in rows) / len(rows):>8.2f}" for d in DEPTHS)
        alone = sum(ok for _, ok, _ in rows) / len(rows)
        print(f"{kind + ' ' + language:<16}{len(rows):>5}{shares}{alone:>10.2f}{median(t for *_, t in rows):>8.2f}")
    for item, top, strange in missed:
        print(f"  not in 4: {item.id} {item.question} must {[g[:2] for g in item.must]} top {top:.2f} {strange}")


if __name__ == "__main__":
    main(*sys.argv[1:])
