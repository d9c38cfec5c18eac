from fractions import Fraction
from itertools import product
from random import Random

import pytest
from rapidfuzz.distance import LCSseq

from camelbell_core.alike import AlikePool, tokens

WHO = {
    "zh": "赫敏 罗恩 海格 邓布利多 斯内普 马尔福 卢平 小天狼星 金妮 纳威 卢娜 多比".split(),
    "en": "Hermione Ron Hagrid Dumbledore Snape Malfoy Lupin Sirius Ginny Neville Luna Dobby".split(),
}
WHAT = {
    "zh": "魁地奇 魔药课 禁林 活点地图 隐形衣 霍格莫德 巫师棋 决斗 圣诞节 海德薇".split(),
    "en": ["Quidditch", "Potions", "the forest", "the map", "the cloak", "Hogsmeade", "chess", "a duel", "Christmas"],
}
ASK = {
    "zh": [
        "你和{0}是怎么认识的？",
        "你觉得{0}喜欢{1}吗？",
        "{0}在{1}的时候对你说了什么？",
        "没有{0}你会{1}吗？",
        "{1}",
    ],
    "en": ["How did you meet {0}?", "Do you think {0} likes {1}?", "What did {0} tell you about {1}?", "Why {1}?"],
}


def made(count, seed=0):
    """Return questions in both languages: one template, or two joined, filled; some are made twice."""
    rng = Random(seed)
    texts = []
    for _ in range(count):
        language = rng.choice(["zh", "en"])
        parts = [
            rng.choice(ASK[language]).format(rng.choice(WHO[language]), rng.choice(WHAT[language]))
            for _ in range(rng.choice([1, 2, 2]))
        ]
        texts.append((" " if language == "en" else "").join(parts))
    return texts


def lcs(one, other):
    """Return the length of the longest common subsequence, by the textbook table."""
    row = [0] * (len(other) + 1)
    for left in one:
        before = row
        row = [0]
        for place, right in enumerate(other):
            row.append(before[place] + 1 if left == right else max(before[place + 1], row[place]))
    return row[-1]


def brute_force(texts, threshold="0.7", inclusive=False, length=lcs, split=tokens):
    """Return for each text the first kept one that it is too like, every pair compared."""
    kept, found = [], []
    least = Fraction(threshold) / 2
    for text in texts:
        words = split(text)

        def alike(other, words=words):
            common = length(words, other) * least.denominator
            limit = (len(words) + len(other)) * least.numerator
            return common > limit or (inclusive and common == limit > 0)

        place = next((place for place, other in enumerate(kept) if alike(other)), -1)
        found.append(place)
        if place < 0:
            kept.append(words)
    return found


def test_4000_questions_are_decided_as_by_comparing_every_pair():
    texts = made(4000)
    pool = AlikePool()
    decided = pool.extend(texts)
    assert decided == brute_force(texts, length=LCSseq.similarity)
    assert len(pool) == decided.count(-1)
    assert 300 < len(pool) < 3500  # both happen, often


@pytest.mark.parametrize("threshold", ["0.2", "0.5", "0.7", "0.9", "1"])
@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("split", [tokens, list])
def test_decisions_at_any_threshold_are_those_of_the_textbook(threshold, inclusive, split):
    texts = ["", "？", *made(60, 7), "好", "好好", "a", "a a", "好 a 好"]
    pool = AlikePool(float(threshold), inclusive=inclusive, split=split)
    assert pool.extend(texts) == brute_force(texts, threshold, inclusive, split=split)


@pytest.mark.parametrize(
    ("first", "second"),
    [("一二三四五六七八九十", "一二三四五六七甲乙丙"), ("a b c d e f g h i j", "a b c d e f g x y z")],
)
def test_a_pair_at_exactly_the_threshold_is_not_above_it(first, second):
    assert AlikePool(0.7).extend([first, second]) == [-1, -1]
    assert AlikePool(0.7, inclusive=True).extend([first, second]) == [-1, 0]
    assert AlikePool(0.69).extend([first, second]) == [-1, 0]


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("你是怎么认识赫敏的？", ["你", "是", "怎", "么", "认", "识", "赫", "敏", "的"]),
        ("How did you MEET Ron's owl?", ["how", "did", "you", "meet", "ron", "s", "owl"]),
        ("你见过Ron和７号吗", ["你", "见", "过", "ron", "和", "7", "号", "吗"]),
        ("ハリー、元気？", ["ハ", "リ", "ー", "元", "気"]),
        ("Привет, Гарри!", ["привет", "гарри"]),
        ("！？… 😀", []),
    ],
)
def test_chinese_is_compared_by_characters_and_latin_by_words(text, split):
    assert tokens(text) == split


@pytest.mark.parametrize("text", ["你好吗？", "How are you?"])
def test_the_same_text_twice_is_too_like_and_one_without_tokens_is_like_none(text):
    assert AlikePool().extend([text, text, "？", "？", text.upper()]) == [-1, 0, -1, -1, 0]


def test_all_that_a_text_is_like_are_named_in_their_order():
    pool = AlikePool()
    for text in ("你喜欢罗恩吗？", "海格的小屋在哪里？", "你喜欢罗恩么？", "Do you like Ron?"):
        pool.keep(text)
    assert list(pool.alike("你喜欢罗恩吧？")) == [0, 2]
    assert list(pool.alike("do you like ron")) == [3]
    assert len(pool) == 4


@pytest.mark.parametrize("length", [129, 600, 5000])
def test_long_texts_and_those_of_one_token_over_and_over_are_decided_rightly(length):
    rng = Random(length)
    long = "".join(rng.choice("天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往") for _ in range(length))
    texts = [long, long[: length * 3 // 4], long[: length // 3], "好" * length, "好" * (length // 2), long[::-1]]
    assert AlikePool().extend(texts) == brute_force(texts, length=LCSseq.similarity)


def test_a_pool_that_outgrows_its_room_keeps_its_decisions():
    texts = [f"{a}{b}{c}的故事" for a, b, c in product("甲乙丙丁戊己庚辛壬癸子丑", repeat=3)]
    pool = AlikePool(0.99)
    assert pool.extend(texts) == [-1] * len(texts)
    assert pool.extend(texts) == list(range(len(texts)))


@pytest.mark.parametrize("threshold", [0, -1, 1.5])
def test_a_threshold_that_means_nothing_is_refused(threshold):
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        AlikePool(threshold)
