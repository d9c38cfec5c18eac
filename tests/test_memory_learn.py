"""The learned retriever: training on a small canon, its file, and how the memory uses it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

from camelbell_core.character import Character
from camelbell_core.errors import CamelBellError
from camelbell_core.pipeline import Run
from camelbell_plugins.memory_canon import CanonMemory, register_commands
from camelbell_plugins.memory_canon.learn import learn
from camelbell_plugins.memory_canon.retriever import FILE, Retriever, read_retriever

THINGS = {
    "lantern": "油灯",
    "telescope": "镜筒",
    "barometer": "气压",
    "compass": "罗盘",
    "hammock": "吊床",
    "blanket": "毛毯",
    "umbrella": "雨伞",
    "candlestick": "烛台",
    "hourglass": "沙漏",
    "typewriter": "打字",
}


def slips(word: str) -> list[str]:
    """Return the word with two neighbouring letters exchanged, in all places but the ends."""
    made = (word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(1, len(word) - 2))
    return [slip for slip in dict.fromkeys(made) if slip != word]


def story(things: dict[str, str] = THINGS, **more: object) -> dict[str, str]:
    """Return a canon of things and their floors, asked for with slips of the pen but the first one."""
    facts = [
        {
            "id": en,
            "about": ["lumen"],
            "text": {"zh": f"{zh}放在第{number}层。", "en": f"The {en} is on floor {number}."},
            "ask": {
                "en": [f"Where do you keep the {word}?" for word in (en, *slips(en)[1:])],
                "zh": [f"{zh}放在哪里？", f"你把{zh[1]}{zh[0]}搁哪儿？", f"{zh[0]}，那个{zh[1]}呢？"],
            },
            **more,
        }
        for number, (en, zh) in enumerate(things.items())
    ]
    lumen = {"type": "person", "names": {"zh": "小灯", "en": "Lumen"}}
    canon = {"timeline": {"chapters": [3, 3]}, "entities": {"lumen": lumen}, "facts": facts}
    return {"canon/canon.yaml": yaml.safe_dump(canon, allow_unicode=True), "seeds/seeds.yaml": ""}


def still(done: int, total: int, note: str) -> None:
    """Show no progress."""


def remember(character: Character) -> CanonMemory:
    memory = CanonMemory()
    memory.prepare(character)
    return memory


def rank(memory: CanonMemory, question: str, fact: str) -> int:
    """Return the place of a fact among those that come to mind; 99 if it does not."""
    found = [recall.fact.id for recall in memory.recall(question, 50)]
    return found.index(fact) if fact in found else 99


@pytest.fixture
def keeper(open_lumen: Callable[..., Run]) -> Character:
    """A character that keeps ten things on ten floors."""
    return open_lumen(story()).character


def trained(character: Character, epochs: int = 24) -> Path:
    """Train the bundle's own retriever and return its file."""
    file = character.root / "memory" / FILE
    learn(character, file, epochs, still)
    return file


def by_hand(**changes: Any) -> Retriever:
    """Return a retriever of three words."""
    known: dict[str, Any] = {
        "vocabulary": {"灯塔": 0, "lamp": 1, "@lumen": 2},
        "vectors": np.array([[127, 0], [0, -64], [5, 127]], np.int8),
        "scales": np.array([0.5, 0.25, 1.0], np.float32),
        "in_question": np.array([1.0, 2.0, 0.5], np.float32),
        "in_fact": np.array([3.0, 1.0, 0.5], np.float32),
        "weights": (0.5, 1.0, 0.25, -0.125),
        "slope": 9.5,
        "offset": -4.25,
    }
    return Retriever(**{**known, **changes})


# --- training --------------------------------------------------------------------------------------


def test_training_puts_the_right_fact_first_for_paraphrases_that_the_index_does_not_know(keeper: Character) -> None:
    questions = {en: (f"Where do you keep the {slips(en)[0]}?", f"{zh[1]}和{zh[0]}") for en, zh in THINGS.items()}
    before = [rank(remember(keeper), question, fact) for fact, asks in questions.items() for question in asks]
    ticks: list[tuple[int, int]] = []
    file = keeper.root / "memory" / FILE
    told = learn(keeper, file, 24, lambda done, total, note: ticks.append((done, total)))
    memory = remember(keeper)
    after = [rank(memory, question, fact) for fact, asks in questions.items() for question in asks]
    assert before.count(0) <= 2 and min(before[1::2]) == 99
    assert after.count(0) >= 18
    assert ticks == [(done, 24) for done in range(1, 25)]
    asks = sum(len(texts) for fact in keeper.canon.facts.values() for texts in fact.ask.values())
    assert told.startswith(f"trained on {asks - asks // 10} questions for 10 facts, ")
    assert f"of {asks // 10} held out, " in told and told.endswith(str(file))


def test_dialogues_are_learned_too_and_their_follow_ups_are_not(open_lumen: Callable[..., Run]) -> None:
    rows = [
        {"lang": "en", "q": f"What helps against {why}?", "facts": [fact]}
        for fact, why in (("umbrella", "drizzle"), ("blanket", "shivering"), ("hammock", "weariness"))
    ]
    rows.append(
        {
            "lang": "en",
            "facts": ["umbrella"],
            "turns": [["Hello there!", "Hello."], ["What helps against drizzle?", "Sun."]],
        }
    )
    text = "".join(json.dumps(row) + "\n" for row in rows)
    character = open_lumen({**story(), "dialogues/helps.jsonl": text}).character
    told = learn(character, character.root / "memory" / FILE, 1, still)
    asks = sum(len(texts) for fact in character.canon.facts.values() for texts in fact.ask.values()) + 4
    assert told.startswith(f"trained on {asks - asks // 10} questions ")


@pytest.mark.parametrize("question", ["xyzzy", "南极", "😀", ""])
def test_what_nothing_speaks_for_is_not_likely(keeper: Character, question: str) -> None:
    trained(keeper)
    assert all(recall.score < 0.2 for recall in remember(keeper).recall(question, 9))


@pytest.mark.parametrize("epochs", [1, 2, 9, 10, 11])
def test_any_number_of_epochs_will_do(keeper: Character, epochs: int) -> None:
    vectors = read_retriever(trained(keeper, epochs)).vectors
    assert vectors.shape[1] == 128 and np.abs(vectors).max() == 127


def test_a_likelier_fact_never_scores_less_though_nothing_could_be_learned(open_lumen: Callable[..., Run]) -> None:
    words = iter(f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "bdfgklmnprst")
    facts = [
        {
            "id": f"f{number}",
            "about": ["lumen"],
            "text": {"zh": f"第{number}件。", "en": f"thing {next(words)}."},
            "ask": {"en": [f"{next(words)} {next(words)}?" for _ in range(5)]},
        }
        for number in range(8)
    ]
    canon = yaml.safe_load(story()["canon/canon.yaml"]) | {"facts": facts}
    character = open_lumen({**story(), "canon/canon.yaml": yaml.safe_dump(canon)}).character
    assert read_retriever(trained(character)).slope > 0
    memory = remember(character)
    for fact in character.canon.facts.values():
        recalls = memory.recall(fact.ask["en"][0], 8)
        scores = [recall.score for recall in recalls]
        assert recalls[0].fact == fact
        assert scores == sorted(scores, reverse=True) and scores[0] > scores[-1]


@pytest.mark.parametrize(
    ("files", "counts"),
    [
        ({}, "8 questions for 2 facts, "),
        (story({"lantern": "油灯", "compass": "罗盘"}), "14 questions for 2 facts, 1 "),
        (story({"lantern": "油灯"}, ask={"en": [f"What is {n}?" for n in range(30)]}), "30 questions for 1 facts, "),
        (story(true_until="2-1"), "82 questions for 10 facts, 0 "),
    ],
    ids=["few questions", "nearly enough", "one fact", "none that holds to the end"],
)
def test_too_few_wordings_are_told(open_lumen: Callable[..., Run], files: dict[str, str], counts: str) -> None:
    character = open_lumen(files).character
    file = character.root / "memory" / FILE
    with pytest.raises(CamelBellError) as caught:
        learn(character, file, 2, still)
    assert caught.value.message.startswith(f"lumen has too few wordings to learn from: {counts}")
    assert "works without a retriever" in caught.value.hint
    assert not file.exists()


# --- the file --------------------------------------------------------------------------------------


def test_a_retriever_is_read_as_it_was_saved(tmp_path: Path) -> None:
    file = tmp_path / "memory" / FILE
    saved = by_hand()
    saved.save(file)
    saved.save(file)  # over the one that is there
    read = read_retriever(file)
    assert read.vocabulary == saved.vocabulary
    assert (read.weights, read.slope, read.offset) == ((0.5, 1.0, 0.25, -0.125), 9.5, -4.25)
    for name in ("vectors", "scales", "in_question", "in_fact"):
        one, other = getattr(read, name), getattr(saved, name)
        assert one.dtype == other.dtype and np.array_equal(one, other)
    assert [file.name for file in file.parent.iterdir()] == [FILE]


def test_vectors_are_the_weighted_sum_of_the_known_words_at_length_one() -> None:
    retriever = by_hand()
    question = 1.0 * 0.5 * np.array([127, 0]) + 2.0 * 0.25 * np.array([0, -64])
    assert retriever.of_question(["灯塔", "nothing", "lamp"]) == pytest.approx(question / np.linalg.norm(question))
    fact = 3.0 * 0.5 * np.array([127, 0]) + 0.5 * 1.0 * np.array([5, 127])
    facts = retriever.of_facts([["灯塔", "@lumen"], ["nothing"], []])
    assert facts[0] == pytest.approx(fact / np.linalg.norm(fact))
    assert facts[1:].tolist() == [[0.0, 0.0]] * 2
    assert retriever.of_facts([]).shape == (0, 2)


def lacking(file: Path, *, tensor: str = "", key: str = "", **metadata: str) -> None:
    """Write the file without one of its tensors or keys."""
    tensors = {name: value for name, value in load_file(file).items() if name != tensor}
    known = {
        "vocabulary": '["a", "b", "c"]',
        "numbers": '{"weights": [1, 1, 1, 0], "slope": 1.0, "offset": 0.0}',
        **metadata,
    }
    save_file(tensors, file, {name: value for name, value in known.items() if name != key} or None)


BROKEN: dict[str, Callable[[Path], None]] = {
    "empty": lambda file: file.write_bytes(b"") and None,
    "text": lambda file: file.write_text("灯塔" * 100, encoding="utf-8") and None,
    "torn": lambda file: file.write_bytes(file.read_bytes()[:-5]) and None,
    "no words": lambda file: lacking(file, key="vocabulary"),
    "no numbers": lambda file: lacking(file, numbers="{}"),
    "no JSON": lambda file: lacking(file, vocabulary="a b c"),
    "no scales": lambda file: lacking(file, tensor="scales"),
    "of another tool": lambda file: save_file(load_file(file), file),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_file_is_told_and_training_makes_it_anew(keeper: Character, how: str) -> None:
    file = keeper.root / "memory" / FILE
    by_hand().save(file)
    assert len(read_retriever(file).vocabulary) == 3
    BROKEN[how](file)
    for read in (lambda: read_retriever(file), lambda: remember(keeper)):
        with pytest.raises(CamelBellError) as caught:
            read()
        assert caught.value.message.startswith(f"cannot read the retriever {str(file)!r}: ")
        assert caught.value.hint == "make it anew: camelbell index NAME"
    assert read_retriever(trained(keeper, 1)) and remember(keeper).recall("lantern", 1)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(CamelBellError, match="cannot read the retriever"):
        read_retriever(tmp_path / FILE)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "memory").write_text("a file", encoding="utf-8")
    with pytest.raises(CamelBellError) as caught:
        by_hand().save(tmp_path / "memory" / FILE)
    assert caught.value.message.startswith("cannot write the retriever ")
    assert caught.value.hint == "name another file with --out"


# --- the memory with a retriever -------------------------------------------------------------------


def test_the_vectors_are_kept_and_made_anew_with_another_retriever(keeper: Character, own_home: Path) -> None:
    question, folder = "Where do you keep the lnatern?", own_home / "memory"
    trained(keeper)
    found = remember(keeper).recall(question, 9)
    written = {file.name: file.stat().st_ino for file in folder.iterdir()}
    assert sorted(Path(name).suffix for name in written) == [".npy", ".sqlite"]
    assert remember(keeper).recall(question, 9) == found
    assert {file.name: file.stat().st_ino for file in folder.iterdir()} == written
    trained(keeper, 3)
    assert [recall.score for recall in remember(keeper).recall(question, 9)] != [recall.score for recall in found]
    assert len(list(folder.iterdir())) == 2 and not {file.name for file in folder.iterdir()} & set(written)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"no numbers"], ids=["empty", "torn", "other"])
def test_broken_vectors_are_made_anew(keeper: Character, own_home: Path, content: bytes) -> None:
    trained(keeper)
    found = remember(keeper).recall("lnatern", 9)
    (vectors,) = (own_home / "memory").glob("*.npy")
    vectors.write_bytes(content)
    assert remember(keeper).recall("lnatern", 9) == found
    vectors.unlink()
    assert remember(keeper).recall("lnatern", 9) == found


def test_unseen_recalls_what_the_index_alone_finds(keeper: Character) -> None:
    trained(keeper)
    memory = remember(keeper)
    for question, fact in {"lnatern": "lantern", "灯和油": "lantern", "tleescope": "telescope"}.items():
        assert memory.recall(question, 1)[0].fact.id == fact
        assert memory.recall(question, 9, unseen=True) == []


def test_where_nothing_can_be_written_the_vectors_live_in_memory(keeper: Character, own_home: Path) -> None:
    trained(keeper)
    found = remember(keeper).recall("lnatern", 9)
    for file in (own_home / "memory").iterdir():
        file.unlink()
    (own_home / "memory").rmdir()
    (own_home / "memory").write_text("a file", encoding="utf-8")
    assert remember(keeper).recall("lnatern", 9) == found


# --- the command -----------------------------------------------------------------------------------


@pytest.fixture
def index(open_lumen: Callable[..., Run], tmp_path: Path) -> Callable[..., Any]:
    """Run `camelbell index lumen` on the ten things."""
    open_lumen(story())
    group = click.Group()
    register_commands(group)
    places = ["--characters", str(tmp_path / "bundles"), "--workspace", str(tmp_path / "run")]
    return lambda *arguments: CliRunner().invoke(group, ["index", "lumen", *map(str, arguments), *places])


def test_the_command_trains_the_bundles_own_retriever_or_another_file(
    index: Callable[..., Any], tmp_path: Path
) -> None:
    own, other = tmp_path / "bundles" / "lumen" / "memory" / FILE, tmp_path / "out" / "other.safetensors"
    done = index("--epochs", 2, "--out", other)
    assert (done.exit_code, done.stdout.endswith(f"{other}\n")) == (0, True)
    assert other.is_file() and not own.exists()
    done = index("--epochs", 2)
    assert (done.exit_code, done.stdout.endswith(f"{own}\n")) == (0, True)
    assert read_retriever(own).vocabulary == read_retriever(other).vocabulary


def test_the_command_refuses_no_epochs(index: Callable[..., Any]) -> None:
    done = index("--epochs", 0)
    assert done.exit_code == 2 and "0 is not in the range x>=1" in done.output
