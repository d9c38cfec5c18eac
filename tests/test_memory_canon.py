from random import Random
from threading import Thread

import pytest

from camelbell_core.records import Message, Point
from camelbell_plugins.memory_canon import CanonMemory

STORY = {
    "canon/story.yaml": """
timeline: {chapters: [3, 3]}
entities:
  harbour: {type: place, names: {zh: 银港, en: Silver Harbour}, aliases: [银港镇, the Harbour]}
facts:
  - id: oil
    about: [lumen]
    source: 1-1
    true_until: 2-2
    text: {zh: 灯塔的灯烧鲸油。, en: The lamp of the lighthouse burns whale oil.}
    ask: {zh: [灯塔的灯烧什么？], en: [What does the lamp burn?]}
  - id: power
    about: [lumen]
    source: 2-2
    true_from: 2-2
    text: {zh: 灯塔的灯用电。, en: The lamp of the lighthouse runs on power.}
    ask: {zh: [灯塔的灯烧什么？], en: [What does the lamp burn?]}
  - id: boats
    about: [harbour]
    source: 1-2
    known_from: 1-3
    text: {zh: 银港停着七条船。, en: Seven boats lie in Silver Harbour.}
    ask: {zh: [银港停着几条船？], en: [How many boats lie in Silver Harbour?]}
"""
}


@pytest.fixture
def recall(open_lumen):
    """Recall facts of a story of two parts; the answer is their ids."""
    character = open_lumen(STORY).character
    memory = CanonMemory()
    memory.prepare(character)

    def ids(question, count=10, at=None, history=()):
        return [recall.fact.id for recall in memory.recall(question, count, at, history)]

    ids.memory, ids.character = memory, character
    return ids


def test_a_fact_comes_first_when_it_is_asked_in_its_own_words(recall):
    for fact in recall.character.canon.facts.values():
        for language in ("zh", "en"):
            for wording in (*fact.ask[language], fact.text[language]):
                found = recall.memory.recall(wording, 2)
                if fact.true_until:
                    continue  # it holds no longer at the end of the story
                assert fact.id in {r.fact.id for r in found if r.score == found[0].score}, wording
                assert found[0].score > 0.9


@pytest.mark.parametrize(
    "question",
    [
        "银港有几条船？",
        "银港镇有几条船？",
        "Silver Harbour 的船",
        "the Harbour 有几条船？",
        "How many boats in 银港?",
        "boats, SILVER HARBOUR",
    ],
)
def test_a_name_an_alias_and_the_name_in_the_other_language_find_the_same_fact(recall, question):
    assert recall(question)[0] == "boats"


@pytest.mark.parametrize("question", ["", " \n", "？？！", "😀", "xyzzy", "南极", "\x00\x1b", '"', "'; --"])
def test_a_question_that_shares_nothing_with_the_canon_brings_nothing_to_mind(recall, question):
    assert recall(question) == []


def test_the_words_of_a_search_engine_are_words(recall):
    for words in ('boats AND "', "boats NEAR(", "tokens: boats", "boats*", "^boats", "boats OR NOT", "(boats"):
        assert recall(words)[0] == "boats"


def test_any_text_can_be_asked(recall):
    rng = Random(0)
    ranges = [(1, 0x250), (0x2000, 0x3100), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xE000, 0xFFFF), (0x1F300, 0x2FFFF)]
    for _ in range(500):
        text = "".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(rng.randrange(20))) + "灯塔"
        scores = [found.score for found in recall.memory.recall(text, 10)]
        assert scores == sorted(scores, reverse=True) and all(0 <= score <= 1 for score in scores)


@pytest.mark.parametrize("question", ["银港停着几条船？", "How many boats lie in Silver Harbour?"])
def test_of_a_question_of_a_megabyte_the_end_counts(recall, question):
    rng = Random(0)
    noise = "".join(chr(rng.randrange(0x4E00, 0x9FFF)) for _ in range(400_000))
    assert recall(noise + "。" * 4000 + question)[0] == "boats"
    assert recall(question + "。" * 4000) == []


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_no_more_facts_than_asked_for(recall, count):
    assert recall("你的灯塔？", count) == recall("你的灯塔？")[:count]
    assert len(recall("你的灯塔？", count)) == count


@pytest.mark.parametrize(
    ("at", "lamp", "boats"),
    [
        (None, {"power"}, True),  # the end of the story
        (Point(1, 2), {"oil"}, False),
        (Point(1, 3), {"oil"}, True),
        (Point(2, 1), {"oil"}, True),
        (Point(2, 2), {"power"}, True),
        (Point(2, 3), {"power"}, True),
    ],
)
def test_at_a_point_of_the_story_only_what_is_true_and_known_then_comes_to_mind(recall, at, lamp, boats):
    assert {*recall("灯塔的灯烧什么？", at=at)} & {"oil", "power"} == lamp
    assert ("boats" in recall("How many boats lie in Silver Harbour?", at=at)) is boats


@pytest.mark.parametrize("question", ["灯塔的灯烧什么？", "What does the lamp burn?"])
def test_of_two_facts_that_answer_alike_the_one_that_will_end_comes_first(open_lumen, question):
    always = """
facts:
  - id: a_light
    about: [lumen]
    text: {zh: 灯塔有灯。, en: The lighthouse has a lamp.}
    ask: {zh: [灯塔的灯烧什么？], en: [What does the lamp burn?]}
"""
    memory = CanonMemory()
    memory.prepare(open_lumen({**STORY, "canon/always.yaml": always}).character)
    first = [[recall.fact.id for recall in memory.recall(question, 2, at)] for at in (Point(1, 2), None)]
    assert first == [["oil", "a_light"], ["a_light", "power"]]


@pytest.mark.parametrize(
    ("before", "question"), [("说说银港。", "那里冷吗？"), ("Tell me about Silver Harbour.", "And cold there?")]
)
def test_a_question_that_names_nothing_is_read_with_the_turn_before_it(recall, before, question):
    history = [Message("user", before), Message("assistant", "好。")]
    older = [*history, Message("user", "x"), Message("assistant", "y")]
    assert [recall(question), recall(question, history=older)] == [[], []]
    assert recall(question, history=history)[0] == "boats"
    assert recall("阿白呢？", history=history)[0] == "pet"


def test_a_bundle_without_facts_remembers_nothing(open_lumen):
    memory = CanonMemory()
    memory.prepare(open_lumen({"canon/canon.yaml": "", "seeds/seeds.yaml": ""}, entity="").character)
    assert memory.recall("灯塔有多少级台阶？", 5) == []


def test_another_thread_can_ask(recall):
    found = []
    thread = Thread(target=lambda: found.append(recall("银港停着几条船？")[0]))
    thread.start()
    thread.join()
    assert found == ["boats"]


def test_a_hand_written_answer_is_remembered_too(open_lumen):
    row = "seeds: [{name: who, ask: {zh: [你究竟是谁呢？]}, answer: {zh: 我就是小灯。}}]"
    memory = CanonMemory()
    memory.prepare(open_lumen({"seeds/seeds.yaml": row}).character)
    assert memory.recall("你究竟是谁呢？", 1)[0].fact.id == "seed-who"
