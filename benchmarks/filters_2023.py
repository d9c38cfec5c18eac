"""What the filters say of the 2,156 answers of 2023, which the project of that year trained on.

    python benchmarks/filters_2023.py path/to/output.json

Rows 957 to 1156 (from 0) hold answers of other questions; the share found there is how good the filters are at that,
the share rejected elsewhere is what they say of the old teacher.
"""

import sys
from collections import Counter
from pathlib import Path
from random import Random

from camelbell_core.character import data_dir, find_character
from camelbell_core.pipeline import judge_pairs, open_run
from camelbell_core.records import Pair
from camelbell_core.roles import Filter
from camelbell_core.text import language_of
from camelbell_plugins.questions_import import read_pairs

SHIFTED = range(957, 1157)


def main(file: str) -> None:
    """Print, for each filter, what it rejects inside and outside the stretch, with examples."""
    run = open_run(find_character("harry_potter"), data_dir() / "runs" / "harry_potter")
    pairs = [
        Pair(question, answer, language_of(question, run.character.languages), "import", generator="import")
        for question, answer in read_pairs(Path(file))
    ]
    judges = [run.registry.build(Filter, "filters", ref) for ref in run.character.config.filters]
    inside, outside = Counter(), Counter()
    examples: dict[str, list[str]] = {}
    for number, (pair, verdict) in enumerate(judge_pairs(run, judges, pairs)):
        if verdict is None:
            continue
        (inside if number in SHIFTED else outside)[verdict.filter] += 1
        if number not in SHIFTED:
            examples.setdefault(verdict.filter, []).append(f"{pair.question[-40:]!r}: {verdict.reason}")
    others = len(pairs) - len(SHIFTED)
    print(
        f"{len(pairs)} rows; {'filter':<16}{'of ' + str(len(SHIFTED)) + ' misplaced':>20}{'of ' + str(others) + ' others':>20}"
    )
    for name in dict.fromkeys([*inside, *outside]):
        shares = f"{inside[name] / len(SHIFTED):>20.1%}{outside[name] / others:>20.1%}"
        print(f"{'':<11}{name:<16}{shares}")
    total = f"{inside.total() / len(SHIFTED):>20.1%}{outside.total() / others:>20.1%}"
    print(f"{'':<11}{'all':<16}{total}")
    for name, found in examples.items():
        for example in Random(0).sample(found, min(3, len(found))):
            print(f"  {name}: {example}")


if __name__ == "__main__":
    main(*sys.argv[1:])
