"""The memory's index: what it finds and how it scores it, own answers, and the file that it is kept in."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from math import log
from pathlib import Path
from random import Random
from threading import Barrier, Thread
from typing import Any

import pytest

from camelbell_core.character import Character
from camelbell_core.records import Message, Recall
from camelbell_plugins.memory_canon import CanonMemory
from camelbell_plugins.memory_canon.index import Wording, WordingIndex

HARBOURS = {
    "canon/harbours.yaml": """
entities:
  silver: {type: place, names: {zh: 银港, en: Silver Harbour}}
  gold: {type: place, names: {zh: 金港, en: Gold Harbour}}
facts:
  - id: boats
    about: [silver]
    text: {zh: 银港停着七条船。, en: Seven boats lie in Silver Harbour.}
    ask: {zh: [银港停着几条船？], en: [How many boats lie in Silver Harbour?]}
  - id: fish
    about: [gold]
    text: {zh: 金港卖鲱鱼。, en: Gold Harbour sells herring.}
    ask: {zh: [金港卖什么鱼？], en: [Which fish does Gold Harbour sell?]}
""",
}


def dialogues(*rows: dict[str, Any]) -> dict[str, str]:
    """Return the story of two harbours with rows of a dialogue file."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return {**HARBOURS, "dialogues/harbours.jsonl": text}


Open = Callable[..., CanonMemory]


@pytest.fixture
def open_memory(open_lumen: Any) -> Open:
    """Open the memory of the scaffold's bundle with more files."""

    def open_it(files: dict[str, str] | None = None, **options: Any) -> CanonMemory:
        return remember(open_lumen(files).character, **options)

    return open_it


def remember(character: Character, **options: Any) -> CanonMemory:
    memory = CanonMemory(**options)
    memory.prepare(character)
    return memory


def first(memory: CanonMemory, question: str, **options: Any) -> Recall | None:
    return next(iter(memory.recall(question, 1, **options)), None)


def ids(memory: CanonMemory, question: str, **options: Any) -> list[str]:
    return [recall.fact.id for recall in memory.recall(question, 9, **options)]


# --- scores ----------------------------------------------------------------------------------------

ME, NAME_WEIGHT = "@me", 1.3


def many(count: int, seed: int = 0) -> list[Wording]:
    """Return wordings of three to nine words, common and rare ones, of which most hold a name."""
    rng = Random(seed)
    made = []
    for number in range(count):
        words = {f"w{int(rng.paretovariate(0.5)) % 3000}" for _ in range(rng.randint(3, 9))}
        words |= {ME} if rng.random() < 0.3 else set()
        words |= {f"@n{rng.randrange(count // 8)}"} if rng.random() < 0.8 else set()
        made.append(Wording(f"f{number // 4}", "en", frozenset(words), "yes" if number % 3 else ""))
    return made


class Slow:
    """The same scores by looking at every wording."""

    def __init__(self, wordings: list[Wording]) -> None:
        self.wordings = wordings
        self.frequencies = Counter(word for wording in wordings for word in wording.words)

    def weight(self, words: frozenset[str]) -> float:
        n = len(self.wordings)
        names = sum(word.startswith("@") and word != ME for word in words)
        others = (log(1 + n / (1 + self.frequencies[w])) for w in words if w == ME or not w.startswith("@"))
        return NAME_WEIGHT * log(1 + n) * names + sum(others)

    def search(self, words: frozenset[str]) -> list[tuple[float, Wording]]:
        total = self.weight(words)
        found = ((words & wording.words, wording) for wording in self.wordings)
        return [(self.weight(same) / (0.7 * total + 0.3 * self.weight(w.words)), w) for same, w in found if same]


def asked(wordings: list[Wording], rng: Random) -> frozenset[str]:
    """Return most words of a wording, and two that no wording holds or many do."""
    words = sorted(rng.choice(wordings).words)
    return frozenset([*rng.sample(words, -(-len(words) * 2 // 3)), f"new{rng.random()}", f"w{rng.randint(1, 9)}"])


def test_every_wording_that_shares_a_word_is_found_with_its_score() -> None:
    wordings, rng = many(400), Random(1)
    index, slow = WordingIndex.build(wordings, {}, None, NAME_WEIGHT, ME), Slow(wordings)
    for _ in range(40):
        words = asked(wordings, rng)
        for match in index.search(words, 400):
            same = match.wording.words & words
            assert match.shares.keys() == same
            assert sum(match.shares.values()) == pytest.approx(slow.weight(same) / slow.weight(words))
        found = sorted((match.wording.fact, match.score, match.wording.answer) for match in index.search(words, 400))
        right = sorted((wording.fact, score, wording.answer) for score, wording in slow.search(words))
        assert [(fact, answer) for fact, _, answer in found] == [(fact, answer) for fact, _, answer in right]
        assert [score for _, score, _ in found] == pytest.approx([score for _, score, _ in right], abs=1e-3)
    assert index.search(frozenset(), 9) == index.search(frozenset({"nothing"}), 9) == []
    index.close()


def test_among_many_wordings_the_best_is_found_though_few_are_looked_at() -> None:
    wordings, rng = many(12_000), Random(2)
    index, slow = WordingIndex.build(wordings, {}, None, NAME_WEIGHT, ME), Slow(wordings)
    for _ in range(40):
        words = asked(wordings, rng)
        found = index.search(words, 240)
        assert len(found) <= 480
        assert max(match.score for match in found) == pytest.approx(
            max(score for score, _ in slow.search(words)), abs=1e-3
        )
    index.close()


def test_a_name_and_a_word_count_for_more_than_many_words_without_the_name() -> None:
    named = [Wording(f"n{n}", "en", frozenset({"@often", f"x{n}"})) for n in range(900)]
    others = [Wording(f"o{n}", "en", frozenset({"lamp", "wick", f"y{n}"})) for n in range(300)]
    index = WordingIndex.build([*named, *others, Wording("it", "en", frozenset({"@often", "lamp"}))], {}, None, 1.3, ME)
    found = index.search(frozenset({"@often", "lamp", "wick"}), 100)
    assert max(found, key=lambda match: match.score).wording.fact == "it"
    index.close()


# --- what comes to mind ----------------------------------------------------------------------------


@pytest.mark.parametrize("entity", ["silver", "Silver", "silver-harbour", "silver.1", "银", "ÉTÉ", "@silver"])
def test_an_entity_may_have_any_id(open_memory: Open, entity: str) -> None:
    # The name stands in the questions alone, so that it is the entity that the fact is about which counts.
    canon = (
        HARBOURS["canon/harbours.yaml"]
        .replace("银港停着七", "那里停着七")
        .replace("lie in Silver Harbour.", "lie there.")
    )
    plain = open_memory({"canon/harbours.yaml": canon})
    memory = open_memory({"canon/harbours.yaml": canon.replace("silver", f'"{entity}"')})
    for question in ("银港？", "Silver Harbour?", "How many boats lie in Silver Harbour?", "金港, boats?"):
        (found, *_), (usual, *_) = memory.recall(question, 9), plain.recall(question, 9)
        assert (found.fact.id, found.score) == (usual.fact.id, pytest.approx(usual.score))


@pytest.mark.parametrize(
    ("question", "facts"),
    [
        ("金港停着几条船？", ["fish", "boats"]),
        ("How many boats lie in Gold Harbour?", ["fish", "boats"]),
        ("How many boats lie in Silver Harbour?", ["boats"]),
    ],
)
def test_a_fact_that_does_not_name_whom_the_question_names_is_not_taken_to_answer(
    open_memory: Open, question: str, facts: list[str]
) -> None:
    recalls = {recall.fact.id: recall.score for recall in open_memory(HARBOURS).recall(question, 9)}
    assert recalls.keys() >= set(facts)
    assert (recalls["boats"] > 0.9) is (facts == ["boats"])
    assert (recalls["boats"] < 0.5) is ("fish" in facts)


@pytest.mark.parametrize(
    ("row", "alone"),
    [
        ({"lang": "zh", "q": "码头挤不挤？", "facts": ["boats"]}, True),
        ({"lang": "en", "q": "Is it crowded at the quay?", "facts": ["boats"]}, True),
        ({"lang": "en", "q": "Many boats?", "facts": ["boats"]}, False),
    ],
)
def test_unseen_leaves_out_the_questions_own_wording_and_no_other(
    open_memory: Open, row: dict[str, Any], alone: bool
) -> None:
    memory = open_memory(dialogues({**row, "q": f"{row['q']} Silver Harbour", "a": "Yes."}))
    question = f"{row['q']} Silver Harbour"
    seen, unseen = first(memory, question), first(memory, question, unseen=True)
    assert seen is not None and (seen.fact.id, seen.answer) == ("boats", "Yes.") and seen.score > 0.98
    assert unseen is not None and (unseen.fact.id, unseen.answer) == ("boats", "")
    assert (unseen.score < 0.5) is alone  # of the other wordings it shares the name alone, or more
    other = "How many boats are in Silver Harbour?"
    assert memory.recall(other, 9, unseen=True)[0].score > 0.5


@pytest.mark.parametrize("unseen", [False, True])
def test_a_question_known_in_one_wording_alone_is_not_known_unseen(open_memory: Open, unseen: bool) -> None:
    memory = open_memory(dialogues({"lang": "zh", "q": "码头挤不挤？", "facts": ["steps"]}))
    assert ids(memory, "码头挤不挤？", unseen=unseen) == ([] if unseen else ["steps"])


OWN = dialogues(
    {"lang": "zh", "q": "银港的船多不多？", "a": "多，有七条。", "facts": ["boats"]},
    {"lang": "en", "q": "Are there many boats at Silver Harbour?", "a": "Seven, no less.", "facts": ["boats"]},
    {"lang": "en", "q": "Is the quay of Silver Harbour wide?", "facts": ["boats"]},
    {
        "lang": "en",
        "q": "Why is the old quay deserted?",
        "a": "It is not.",
        "facts": ["boats"],
        "kind": "false_premise",
    },
)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("银港的船多不多？", "多，有七条。"),
        ("Are there many boats at Silver Harbour?", "Seven, no less."),
        ("are there MANY boats, at silver harbour", "Seven, no less."),
        ("Silver Harbour 的船多不多？", "多，有七条。"),
        ("金港的船多不多？", ""),  # another name
        ("Are there many boats at Gold Harbour?", ""),
        ("Are there many boats at Silver Harbour, Gold Harbour?", ""),
        ("Are there many boats?", ""),  # no name
        ("银港 Are there many boats at?", ""),  # another language
        ("Why is Silver Harbour so full of boats and people?", ""),  # other words
        ("Is the quay of Silver Harbour wide?", ""),  # no answer was written
        ("Why is the old quay deserted?", "It is not."),  # a mistaken question has only its own names
    ],
)
def test_an_own_answer_is_given_to_the_same_question_about_the_same_names_in_the_same_language(
    open_memory: Open, question: str, answer: str
) -> None:
    recall = first(open_memory(OWN), question)
    assert recall is not None and recall.answer == answer


@pytest.mark.parametrize(
    ("before", "question"), [("银港大吗？", "船多不多？"), ("Is Silver Harbour large?", "Are there many boats?")]
)
def test_a_question_that_leans_on_the_turn_before_gets_no_own_answer(
    open_memory: Open, before: str, question: str
) -> None:
    history = [Message("user", before), Message("assistant", "x")]
    recall = first(open_memory(OWN), question, history=history)
    assert recall is not None and (recall.fact.id, recall.answer) == ("boats", "")


# --- the file --------------------------------------------------------------------------------------


def kept(home: Path) -> list[tuple[str, int, int]]:
    """Return name, inode and time of the files that memories keep."""
    files = sorted((home / "memory").iterdir())
    return [(file.name, file.stat().st_ino, file.stat().st_mtime_ns) for file in files]


def test_the_index_is_written_once_and_opened_after(open_memory: Open, own_home: Path) -> None:
    found = open_memory(OWN).recall("银港的船多不多？", 9)
    written = kept(own_home)
    assert len(written) == 1
    assert open_memory(OWN).recall("银港的船多不多？", 9) == found
    assert kept(own_home) == written


CHANGES = {
    "a statement": (HARBOURS, "七条船", "七条独木舟", "独木舟？", "boats"),
    "a question": (HARBOURS, "How many boats", "How many canoes", "canoes?", "boats"),
    "a name": (HARBOURS, "Gold Harbour}", "Amber Cove}", "Amber Cove?", "fish"),
    "whom it is about": (HARBOURS, "about: [gold]", "about: [gold, gull]", "Pebble sells?", "fish"),
    "whose name it is": (
        HARBOURS,
        "silver: {type: place, names: {zh: 银港, en: Silver Harbour}}\n  gold: {type: place, names: {zh: 金港, en: Gold",
        "gold: {type: place, names: {zh: 银港, en: Silver Harbour}}\n  silver: {type: place, names: {zh: 金港, en: Gold",
        "银港停",
        "fish",
    ),
    "a dialogue": (OWN, "old quay", "old jetty", "jetty?", "boats"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_the_index_is_made_anew_when_the_canon_changes(open_memory: Open, own_home: Path, what: str) -> None:
    files, old, new, question, fact = CHANGES[what]
    before, (written,) = open_memory(files), kept(own_home)
    changed = {name: text.replace(old, new) for name, text in files.items()}
    assert changed != files
    after = open_memory(changed)
    assert fact in ids(after, question) and ids(after, question) != ids(before, question)
    (made,) = kept(own_home)  # the old one is gone
    assert made[0] != written[0]


@pytest.mark.parametrize(
    ("old", "new"), [("It is not.", "Never was."), ('"lang": "en", "q": "Why', '"lang": "zh", "q": "Why')]
)
def test_an_answer_or_its_language_that_changes_is_noticed(open_memory: Open, old: str, new: str) -> None:
    question = "Why is the old quay deserted?"
    assert first(open_memory(OWN), question).answer == "It is not."
    changed = {name: text.replace(old, new) for name, text in OWN.items()}
    assert first(open_memory(changed), question).answer == ("Never was." if "Never" in new else "")


def test_other_weights_have_an_index_of_their_own(
    open_memory: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def score(weight: float) -> float:
        return open_memory(HARBOURS, name_weight=weight).recall("停着船？", 1)[0].score

    after_another = [score(weight) for weight in (1.3, 3.0)][1]
    monkeypatch.setenv("CAMELBELL_HOME", str(tmp_path / "another"))
    assert after_another == score(3.0)


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0", b"no database" * 1000], ids=["empty", "torn", "other"])
def test_a_broken_index_is_made_anew(open_memory: Open, own_home: Path, content: bytes) -> None:
    open_memory(HARBOURS)
    (file,) = (own_home / "memory").iterdir()
    whole = file.read_bytes()
    file.write_bytes(content)
    assert ids(open_memory(HARBOURS), "银港？") == ["boats"]
    assert len(file.read_bytes()) == len(whole)


@pytest.mark.parametrize("why", ["a file stands there", "SQLite takes no path so long"])
def test_where_nothing_can_be_written_the_index_lives_in_memory(
    open_memory: Open, own_home: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    if why == "a file stands there":
        own_home.write_text("", encoding="utf-8")
    else:
        monkeypatch.setenv("CAMELBELL_HOME", str(own_home.joinpath(*["long" * 50] * 4)))
    for _ in range(2):
        memory = open_memory(OWN)
        assert ids(memory, "银港？") == ["boats"]
        assert first(memory, "银港的船多不多？").answer == "多，有七条。"


@pytest.mark.parametrize("name", ["家 #1", "100%41", "it's"])
def test_a_data_folder_may_have_any_name(
    open_memory: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("CAMELBELL_HOME", str(tmp_path / name))
    open_memory(HARBOURS)
    written = kept(tmp_path / name)
    assert ids(open_memory(HARBOURS), "银港？") == ["boats"]
    assert kept(tmp_path / name) == written and not list(tmp_path.glob("家 "))


def test_two_at_once_do_not_disturb_each_other(open_lumen: Any, own_home: Path) -> None:
    character = open_lumen(HARBOURS).character
    _ = character.canon.names, character.dialogues
    wrong: list[object] = []

    def work(weight: float) -> None:
        for _ in range(8):
            together.wait()
            try:
                found = ids(remember(character, name_weight=weight), "How many boats lie in Silver Harbour?")
            except BaseException as error:
                wrong.append(error)
                continue
            wrong.extend([found] if found[0] != "boats" else [])

    together = Barrier(4)
    threads = [Thread(target=work, args=(weight,)) for weight in (1.3, 1.3, 1.4, 1.4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert {Path(name).suffix for name, _, _ in kept(own_home)} <= {".sqlite"}  # no draft is left


def test_a_memory_goes_on_while_another_of_a_changed_canon_takes_its_place(open_memory: Open) -> None:
    old = open_memory(HARBOURS)
    new = open_memory({name: text.replace("boats lie", "canoes lie") for name, text in HARBOURS.items()})
    assert [ids(memory, "canoes?") for memory in (old, new)] == [[], ["boats"]]
    assert [ids(memory, "银港？") for memory in (old, new)] == [["boats"], ["boats"]]
