"""What is kept of a bundle is what was read of it, for as long as nothing changes, and never a bundle with mistakes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from camelbell_core import character as character_module
from camelbell_core.character import Character, find_character, read_character
from camelbell_core.errors import BundleError
from camelbell_core.pipeline import Run, open_run

RELATIONS = """
timeline: {part: {zh: "第{n}部曲", en: "book {n}"}, chapters: [2, 3]}
entities:
  old_tom: {type: person, names: {zh: 老汤姆, en: Old Tom}, aliases: [汤姆]}
  ann: {type: person, names: {zh: 安, en: Ann}}
roles:
  father: {zh: [父亲], en: [father]}
  daughter: {zh: [女儿], en: [daughter]}
relations:
  - {father: old_tom, daughter: ann}
"""
DIALOGUES = [
    {"lang": "zh", "q": "你好吗？", "a": "我很好。", "kind": "open"},
    {"lang": "en", "turns": [["Hello?", "Hello."], ["And then?", "Nothing."]], "kind": "open"},
]
FILES = {
    "canon/more.yaml": RELATIONS,
    "dialogues/talk.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in DIALOGUES),
}


def told(character: Character) -> tuple[Any, ...]:
    """Return all that is read of a bundle's canon and dialogues."""
    canon = character.canon
    return (
        canon.entities,
        list(canon.facts.items()),
        canon.chapters,
        canon.questions,
        canon.vocabulary,
        character.dialogues,
        canon.parts,
    )


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what is read from the bundle's own files, as it happens."""
    seen: list[str] = []
    for name in ("read_canon", "read_dialogues"):
        real = getattr(character_module, name)

        def noted(*arguments: Any, name: str = name, real: Any = real) -> Any:
            seen.append(name)
            return real(*arguments)

        monkeypatch.setattr(character_module, name, noted)
    return seen


def again(run: Run) -> Run:
    """Open the same bundle as a new process would."""
    return open_run(run.character.ref, run.workspace.root)


def test_a_second_start_reads_nothing_and_knows_the_same(open_lumen: Callable[..., Run], reads: list[str]) -> None:
    first = open_lumen(FILES)
    expected = told(first.character)
    assert reads == ["read_canon", "read_dialogues"]
    assert any(question.generator == "relations" for question in expected[3])
    assert {"你好吗？", "Hello?", "And then?"} <= {question.text for question in expected[5]}

    second = again(first)
    assert told(second.character) == expected
    assert reads == ["read_canon", "read_dialogues"]


def test_the_dialogues_are_not_even_opened_for_a_chat(
    open_lumen: Callable[..., Run], own_home: Path, reads: list[str]
) -> None:
    first = open_lumen(FILES)
    assert first.memory.recall("你是谁？", 2)  # writes the memory's own index
    (kept,) = (own_home / "bundles").glob("*-dialogues.json")
    kept.write_text("damaged", encoding="utf-8")
    second = again(first)
    assert [recall.fact.id for recall in second.memory.recall("你是谁？", 2)]
    assert reads == ["read_canon", "read_dialogues"]
    assert second.character.dialogues == first.character.dialogues  # damaged: read anew from the bundle
    assert reads == ["read_canon", "read_dialogues", "read_dialogues"]


@pytest.mark.parametrize("changed", ["canon/more.yaml", "dialogues/talk.jsonl", "character.yaml", "seeds/new.yaml"])
def test_a_change_of_any_file_is_read(
    open_lumen: Callable[..., Run], reads: list[str], own_home: Path, changed: str
) -> None:
    first = open_lumen(FILES)
    file = first.character.root / changed
    before = file.stat() if file.exists() else None
    text = file.read_text(encoding="utf-8") if before else "seeds: []\n"
    file.write_text(
        text.replace("老汤姆", "大汤姆").replace("我很好", "我不好").replace("en:", "en: ") + "\n", encoding="utf-8"
    )
    if before:  # not even the time tells
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    second = again(first)
    assert reads == ["read_canon", "read_dialogues"] * 2
    if changed.startswith(("canon", "dialogues")):
        assert told(second.character) != told(first.character)
    assert len(list((own_home / "bundles").glob("lumen-*-canon.json"))) == 1  # the old state is gone


def test_other_code_reads_again(
    open_lumen: Callable[..., Run], reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_lumen(FILES)
    monkeypatch.setattr("camelbell_core.kept._code", lambda: "another release")
    again(first)
    assert reads == ["read_canon", "read_dialogues"] * 2


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"entities": 3}', '{"entities": [], "facts": [[1]]}', "null"])
def test_a_damaged_file_is_read_anew_and_mended(
    open_lumen: Callable[..., Run], own_home: Path, damage: str, reads: list[str]
) -> None:
    first = open_lumen(FILES)
    (kept,) = (own_home / "bundles").glob("*-canon.json")
    whole = kept.read_bytes()
    kept.write_text(damage, encoding="utf-8")
    assert told(again(first).character) == told(first.character)
    assert kept.read_bytes() == whole


def test_a_bundle_with_mistakes_is_told_of_every_time_and_not_kept(
    open_lumen: Callable[..., Run], own_home: Path
) -> None:
    for _ in range(2):
        with pytest.raises(BundleError) as caught:
            open_lumen({**FILES, "dialogues/talk.jsonl": '{"lang": "zh", "q": "你好？", "facts": ["no_such_fact"]}\n'})
        assert [problem.what for problem in caught.value.problems] == ["unknown fact 'no_such_fact'"]
    assert not list(own_home.rglob("*-canon.json"))


def test_where_nothing_can_be_written_all_is_read(
    open_lumen: Callable[..., Run], own_home: Path, reads: list[str]
) -> None:
    own_home.mkdir()
    (own_home / "bundles").write_text("a file in the way", encoding="utf-8")
    first = open_lumen(FILES)
    assert told(again(first).character) == told(first.character)
    assert reads == ["read_canon", "read_dialogues"] * 2


def test_answers_of_seeds_stay_facts_of_the_character(open_lumen: Callable[..., Run]) -> None:
    seeds = "seeds:\n- {name: hail, ask: {zh: [你好], en: [Hello]}, answer: {zh: 你好！, en: Hi!}}\n"
    first = open_lumen({**FILES, "seeds/hail.yaml": seeds})
    second = again(first)
    assert second.character.canon.facts["seed-hail"].text == {"zh": "你好！", "en": "Hi!"}
    assert list(second.character.canon.facts) == list(first.character.canon.facts)


def test_two_bundles_of_one_name_do_not_disturb_each_other(
    open_lumen: Callable[..., Run], own_home: Path, tmp_path: Path, reads: list[str]
) -> None:
    import shutil

    first = open_lumen(FILES)
    shutil.copytree(first.character.root, tmp_path / "others" / "lumen")
    ref = find_character("lumen", [tmp_path / "others"])
    open_run(ref, tmp_path / "run2")
    again(first)
    assert reads == ["read_canon", "read_dialogues"] * 2
    assert read_character(ref).digest == first.character.digest
