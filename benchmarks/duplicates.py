"""Duplicate questions at scale: exact ROUGE-L F > 0.7 against rouge_score, growth, additions to a large pool, memory.

    pip install rouge-score
    python benchmarks/duplicates.py [CHARACTER] [SIZE ...]        (default: harry_potter 1000 10000 35000 70000)

Two sets: ``template`` fills two-part templates with few values, so that most questions are near duplicates;
``bundle`` asks what the bundle's own generators ask, of which most are kept. rouge_score compares each of the first
1,000 questions with every one kept so far; its time at the last size is extrapolated by the number of such comparisons.
Limits: 70,000 in 15 s, growth at most as N^1.5, 1,000 more in 2 s.
"""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Iterator
from itertools import accumulate
from math import log
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import perf_counter

from camelbell_core.alike import AlikePool, tokens
from camelbell_core.character import find_character
from camelbell_core.journal import read_records
from camelbell_core.pipeline import make_questions, open_run
from camelbell_core.records import Question

PEER, MORE = 1000, 1000
OPENINGS = (
    "你是怎么认识{w}的|你第一次见到{w}是什么时候|你最喜欢{w}哪一点|{w}教过你什么|你会和{w}一起{t}吗|"
    "{w}在{p}做了什么|你为什么在{p}{t}|如果{w}离开{p}你会怎样|谁和你在{p}{t}|{w}送过你什么"
)
ENDINGS = "后来在{p}发生了什么|{w}知道这件事吗|那天你们{t}了吗|你后悔吗|你会告诉{w}吗|这和{p}有什么关系|你还会再{t}吗|当时你害怕{w}吗"
PEOPLE = (
    "赫敏 罗恩 海格 邓布利多 斯内普 马尔福 卢平 小天狼星 金妮 纳威 卢娜 多比 麦格教授 "
    "弗立维 穆迪 张秋 塞德里克 珀西 弗雷德 乔治 莫丽 亚瑟 唐克斯 费尔奇 皮皮鬼"
)
PLACES = "禁林 图书馆 礼堂 塔楼 地下教室 霍格莫德 对角巷 陋居 女贞路 魔法部 密室 有求必应屋 天文塔 黑湖 尖叫棚屋 古灵阁 医院 温室"
THINGS = "下棋 打魁地奇 熬魔药 练守护神咒 偷看地图 喝黄油啤酒 写论文 决斗 喂海德薇 关禁闭 过圣诞节 隐身 变形 飞行 占卜"


def template_questions(count: int) -> list[str]:
    """Return two-part questions, mean length about 20 characters."""
    rng = Random(0)
    values = {"w": PEOPLE.split(), "p": PLACES.split(), "t": THINGS.split()}

    def filled(template: str) -> str:
        return template.format(**{slot: rng.choice(words) for slot, words in values.items()})

    parts = [text.split("|") for text in (OPENINGS, ENDINGS)]
    return ["，".join(filled(rng.choice(some)) for some in parts) + "？" for _ in range(count)]


def bundle_questions(name: str, count: int) -> list[str]:
    """Return what the bundle's generators ask, shuffled."""
    with TemporaryDirectory() as folder:
        run = open_run(find_character(name), Path(folder))
        make_questions(run, count)
        texts = [question.text for question in read_records(run.workspace.questions, Question)]
    Random(0).shuffle(texts)
    return texts


def by_rouge_score(texts: list[str], above: float) -> list[bool]:
    """Return which texts are kept when each is scored by rouge_score against all kept before."""
    from rouge_score.rouge_scorer import _score_lcs

    kept: list[list[str]] = []

    def keeps(words: list[str]) -> bool:
        if any(_score_lcs(words, other).fmeasure > above for other in kept):
            return False
        kept.append(words)
        return True

    return [keeps(tokens(text)) for text in texts]


def grown(texts: list[str], sizes: list[int]) -> Iterator[tuple[int, float, list[int], AlikePool]]:
    """Yield size, seconds, decisions and pool for each size."""
    for size in sizes:
        pool = AlikePool()
        start = perf_counter()
        decided = pool.extend(texts[:size])
        yield size, perf_counter() - start, decided, pool


def main(character: str = "harry_potter", *sizes: str) -> None:
    """Print a table a set."""
    steps = [int(size) for size in sizes] or [1000, 10_000, 35_000, 70_000]
    last = steps[-1]
    for label, texts in (
        ("template", template_questions(last + MORE)),
        ("bundle", bundle_questions(character, last + MORE)),
    ):
        if len(texts) < last + MORE:
            print(f"{label}: only {len(texts)} questions; ask for a smaller size")
            continue
        mean = sum(map(len, texts)) / len(texts)
        print(
            f"\n{label}: {len(texts)} questions, mean {mean:.0f} characters\n{'size':>8}{'kept':>8}{'seconds':>9}{'growth':>8}"
        )
        before: tuple[int, float] | None = None
        for size, seconds, decided, pool in grown(texts, steps):  # noqa: B007
            power = f"N^{log(seconds / before[1]) / log(size / before[0]):.2f}" if before else ""
            print(f"{size:>8}{len(pool):>8}{seconds:>9.2f}{power:>8}", flush=True)
            before = size, seconds
        start = perf_counter()
        pool.extend(texts[last : last + MORE])
        print(f"{MORE} more: {perf_counter() - start:.2f} s (limit 2)")
        print(f"{last} in {seconds:.2f} s: {seconds / 15:.2f} of the limit of 15 s")
        tracemalloc.start()
        counted = AlikePool()
        counted.extend(texts[:10_000])
        print(f"memory: {tracemalloc.get_traced_memory()[0] / max(1, len(counted)):.0f} bytes a kept text")
        tracemalloc.stop()
        start = perf_counter()
        theirs = by_rouge_score(texts[:PEER], 0.7)
        peer = perf_counter() - start
        ours = AlikePool()
        start = perf_counter()
        mine = [place < 0 for place in ours.extend(texts[:PEER])]
        own = perf_counter() - start
        ties = by_rouge_score(texts[:PEER], 0.7 + 1e-9)
        compared = list(accumulate((place < 0 for place in decided), initial=0))
        hours = peer * sum(compared[:last]) / max(1, sum(compared[:PEER])) / 3600
        print(f"rouge_score, {PEER}: {peer:.1f} s, ours {own:.3f} s: {peer / own:.0f} times as fast")
        print(
            f"  kept {sum(mine)}; decisions differ on {sum(a != b for a, b in zip(mine, ties, strict=True))} questions"
        )
        print(f"  with ties left to its floating point it keeps {sum(theirs)}")
        print(
            f"  at {last} it would take about {hours:.0f} h (extrapolated): {hours * 3600 / seconds:.0f} times as long"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
