"""The bundles that ship: each is whole, in both languages, with sources, and tested on other words than its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from camelbell_core.character import BundleRef, Character
from camelbell_core.pipeline import Run, find_quiz, open_run
from camelbell_core.records import Fact
from camelbell_core.registry import build_registry
from camelbell_core.session import personas
from camelbell_core.slots import slot_names
from camelbell_core.text import language_of, sentences, squash

ROOT = Path(__file__).parent.parent / "characters"
BUNDLES = sorted(file.parent.name for file in ROOT.glob("*/character.yaml"))
LANGUAGES = ["zh", "en"]
SEED_DATA = Path(__file__).resolve().parents[2] / "shared/seed-data"
WORDS_ONLY = 4  # folded characters: the texts of 2023 that are no longer than this are everyday words and names


@cache
def opened(name: str) -> Run:
    """Open a shipped bundle, all of it checked; nothing is written to its workspace."""
    return open_run(BundleRef(name, ROOT / name, "test"), ROOT / name / "no-such-run")


@cache
def character(name: str = "harry_potter") -> Character:
    return opened(name).character


@cache
def asked(name: str) -> dict[str, str]:
    """Return every question that a bundle's facts are asked by and that its dialogues hold, folded, with its origin."""
    facts = character(name).canon.facts.values()
    known = {squash(ask)[0]: fact.id for fact in facts for asks in fact.ask.values() for ask in asks}
    return known | {squash(question.text)[0]: question.seed for question in character(name).dialogues}


def facts_where(wrong: Any) -> list[str]:
    """Return the ids of Harry Potter's facts of which something is wrong."""
    return [fact.id for fact in character().canon.facts.values() if wrong(fact)]


# --- every bundle ---------------------------------------------------------------------------------


def test_two_bundles_ship() -> None:
    assert {"harry_potter", "instruct"} <= set(BUNDLES)


@pytest.mark.parametrize("name", BUNDLES)
def test_every_bundle_passes_its_check(name: str, camelbell: Any) -> None:
    assert opened(name).registry.check(character(name)) == []
    done = camelbell("check", name)
    assert (done.returncode, done.stdout.splitlines()[0], done.stderr) == (0, f"{name}: no mistakes", "")


@pytest.mark.parametrize("name", BUNDLES)
def test_every_bundle_speaks_chinese_and_english(name: str) -> None:
    who = character(name)
    assert who.languages == LANGUAGES
    assert who.config.description
    assert who.config.license == "Apache-2.0"
    for language in LANGUAGES:
        for text in (
            who.title(language),
            personas(who, build_registry(who.ref))[language],
            who.fill(who.config.greeting[language], language),
        ):
            assert language_of(text, LANGUAGES) == language
            assert "{" not in text
        assert len(who.config.voice[language].unknown) >= 3


@pytest.mark.parametrize("name", BUNDLES)
def test_every_bundle_has_a_page_a_quick_and_a_full_preset(name: str) -> None:
    assert (ROOT / name / "README.md").is_file()
    assert {"quick", "full"} <= set(character(name).config.presets)


@pytest.mark.parametrize("name", BUNDLES)
def test_every_file_of_a_bundle_is_utf_8_with_plain_line_ends(name: str) -> None:
    files = [file for file in (ROOT / name).rglob("*") if file.suffix in {".yaml", ".jsonl", ".md", ".py"}]
    for file in files:
        data = file.read_bytes()
        data.decode("utf-8")
        assert not data.startswith(b"\xef\xbb\xbf"), file
        assert b"\r" not in data, file
        assert "\ufffd" not in data.decode("utf-8"), file


@pytest.mark.parametrize("name", BUNDLES)
def test_no_template_stands_there_twice_and_none_is_unused(name: str) -> None:
    seeds = character(name).seeds
    texts = [(language, text) for seed in seeds for language, asks in seed.texts.items() for text in asks]
    assert [text for text in set(texts) if texts.count(text) > 1] == []
    assert {slot for _, text in texts for slot in slot_names(text)} == set(character(name).slots)


@pytest.mark.parametrize("name", BUNDLES)
def test_the_quiz_is_sound(name: str) -> None:
    items = find_quiz(character(name))
    assert {item.language for item in items} == set(LANGUAGES)
    for values in ([item.id for item in items], [(item.language, squash(item.question)[0]) for item in items]):
        assert sorted(value for value in set(values) if values.count(value) > 1) == []
    assert [item.id for item in items if language_of(item.question, LANGUAGES) != item.language] == []
    for item in items:
        if item.at:
            character(name).canon.point(item.at)


@pytest.mark.parametrize("name", BUNDLES)
def test_no_quiz_question_stands_among_the_facts_questions(name: str) -> None:
    same = [item.id for item in find_quiz(character(name)) if squash(item.question)[0] in asked(name)]
    assert same == []


@pytest.mark.parametrize("name", BUNDLES)
def test_no_quiz_question_is_nearly_one_of_the_facts(name: str) -> None:
    from rapidfuzz import fuzz, process

    near = {}
    for item in find_quiz(character(name)):
        question = squash(item.question)[0]
        found = process.extractOne(question, asked(name).keys(), scorer=fuzz.ratio, score_cutoff=95)
        if found and found[1] > 95:
            near[item.question] = found[0]
    assert near == {}


# --- Harry Potter ---------------------------------------------------------------------------------


def test_harry_potter_has_at_least_42_seeds_in_both_languages() -> None:
    seeds = [seed for seed in character().own_seeds if all(seed.texts.get(language) for language in LANGUAGES)]
    assert len(seeds) >= 42
    assert [seed.name for seed in character().own_seeds if seed not in seeds] == []


def test_every_slot_value_is_in_both_languages_with_a_source() -> None:
    values = [(slot, value) for slot, values in character().slots.items() for value in values]
    assert [slot for slot, value in values if not value.source] == []
    assert [slot for slot, value in values if not all(value.texts.get(language) for language in LANGUAGES)] == []


def test_a_slot_value_comes_from_a_novel_from_everyday_life_or_is_invented() -> None:
    sources = {value.source for values in character().slots.values() for value in values}
    assert sources - {"everyday", "invented"} <= {str(novel) for novel in range(1, 8)}


def test_harry_potter_has_at_least_500_facts() -> None:
    assert len(character().canon.facts) >= 500


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("part", ["text", "voice", "ask"])
def test_every_fact_is_there_in_both_languages(part: str, language: str) -> None:
    assert facts_where(lambda fact: not getattr(fact, part).get(language)) == []


def test_every_fact_is_told_and_asked_in_the_language_that_it_claims() -> None:
    def misplaced(fact: Fact) -> bool:
        texts = [(language, text) for part in (fact.text, fact.voice) for language, text in part.items()]
        texts += [(language, ask) for language, asks in fact.ask.items() for ask in asks]
        return any(language_of(text, LANGUAGES) != language for language, text in texts)

    assert facts_where(misplaced) == []


def test_every_fact_has_a_source_in_range() -> None:
    chapters = character().canon.chapters
    assert chapters == (17, 18, 22, 37, 38, 30, 37)  # of the seven novels, the epilogue as 7-37
    # Hand-written answers of seeds/, what he says of himself, and ties of people stand at no one place of the novels.
    anywhere = ("seed-", "me-", "r-")
    told = [fact for fact in character().canon.facts.values() if not fact.id.startswith(anywhere)]
    assert [f.id for f in told if f.source is None or not 1 <= f.source.chapter <= chapters[f.source.part - 1]] == []


def test_no_fact_ends_before_it_begins() -> None:
    assert facts_where(lambda f: f.true_from and f.true_until and not f.true_from < f.true_until) == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_fact_as_he_tells_it_holds_its_own_answer(language: str) -> None:
    canon = character().canon
    lacking = {fact.id: canon.missing(fact, fact.voice.get(language, "")) for fact in canon.facts.values()}
    assert {fact: items for fact, items in lacking.items() if items} == {}


def test_every_entity_has_a_name_in_both_languages() -> None:
    entities = character().canon.entities.values()
    assert [entity.id for entity in entities if not all(entity.names.get(language) for language in LANGUAGES)] == []


# --- instruct -------------------------------------------------------------------------------------


def test_instruct_has_80_instructions_with_answers_in_both_languages() -> None:
    seeds = character("instruct").own_seeds
    whole = [s for s in seeds if all(s.texts.get(language) and s.answers.get(language) for language in LANGUAGES)]
    assert len(whole) >= 80
    assert [seed.name for seed in seeds if seed not in whole] == []


def test_no_placeholder_of_instruct_is_left_open() -> None:
    seeds = character("instruct").own_seeds
    texts = [
        text for seed in seeds for text in (*seed.answers.values(), *(t for asks in seed.texts.values() for t in asks))
    ]
    assert [text for text in texts if "{" in text or "}" in text] == []


# --- the words are our own ------------------------------------------------------------------------


def seed_sentences() -> Iterator[str]:
    """Yield every sentence of the questions and answers of 2023, folded, without the marks at its ends."""
    rows = json.loads((SEED_DATA / "output.json").read_text(encoding="utf-8"))
    rows += json.loads((SEED_DATA / "developer_instruction.json").read_text(encoding="utf-8"))
    for line in (SEED_DATA / "seed_tasks.jsonl").read_text(encoding="utf-8").splitlines():
        task = json.loads(line)
        rows += [{"instruction": task["instruction"]}, *task["instances"]]
    for row in rows:
        for text in row.values():
            for sentence in (s for line in text.splitlines() for s in sentences(line)):
                yield squash(sentence)[0].strip("。！？!?，,.…：:；;")


@pytest.mark.skipif(not SEED_DATA.is_dir(), reason="the data of 2023 is not here")
@pytest.mark.parametrize("name", BUNDLES)
def test_no_sentence_of_the_data_of_2023_stands_in_a_bundle(name: str) -> None:
    known = {sentence for sentence in seed_sentences() if len(sentence) > WORDS_ONLY}
    assert len(known) > 10_000
    files = [file for file in (ROOT / name).rglob("*") if file.suffix in {".yaml", ".jsonl", ".md", ".py"}]
    text = "\n".join(squash(file.read_text(encoding="utf-8"))[0] for file in files)
    assert sorted(sentence for sentence in known if sentence in text) == []
