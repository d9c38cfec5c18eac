"""YAML that is checked: every mistake with its file and line, and what was meant."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from camelbell_core.checked_yaml import Document, suggest


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["person", "place"] = "person"
    names: dict[str, str]
    age: int = 0


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid")
    title: str
    version: str = ""
    languages: list[str] = Field(default=["zh"], min_length=1)
    parts: dict[str, Part] = {}
    more: list[Part] = []
    on: bool = True


def read(tmp_path: Path, text: str | bytes) -> Document:
    file = tmp_path / "角色.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Document(file)


def mistakes(tmp_path: Path, text: str | bytes) -> list[tuple[int, str, str]]:
    document = read(tmp_path, text)
    document.check(Model)
    assert all(problem.file == tmp_path / "角色.yaml" for problem in document.problems)
    return [(problem.line, problem.key, problem.what) for problem in document.problems]


COLON = "; a full-width colon '：' is not YAML, write ': '"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("title: 灯\ntilte: x\n", [(2, "tilte", 'unknown key; did you mean "title"?')]),
        ("title: light\nzzz: x\n", [(2, "zzz", "unknown key")]),
        ("parts:\n  a: {names: {}, naems: {}}\n", [
            (1, "title", "is missing"),
            (2, "parts.a.naems", 'unknown key; did you mean "names"?'),
        ]),
        ("title: x\nmore:\n- names: {zh: 甲}\n- nmaes: {}\n", [
            (4, "more.1.names", "is missing"),
            (4, "more.1.nmaes", 'unknown key; did you mean "names"?'),
        ]),
        ("title: x\nlanguages: [zh, no]\n", [
            (2, "languages.1", "must be text (YAML reads no, off, yes, on as false: put it in quotes)"),
        ]),
        ("title: yes\n", [(1, "title", "must be text (YAML reads no, off, yes, on as true: put it in quotes)")]),
        ("title: x\nversion: 1.10\n", [
            (2, "version", "must be text (YAML reads it as the number 1.1: put it in quotes)"),
        ]),
        ("title: x\nversion: 2024-01-31\n", [(2, "version", "must be text")]),
        ("title: x\nlanguages: []\n", [(2, "languages", "must not be empty")]),
        ("title: x\nlanguages: zh\n", [(2, "languages", "must be a list")]),
        ("title: x\nparts: [a]\n", [(2, "parts", "must be a mapping (key: value)")]),
        ("title: x\nparts:\n  a:\n    names：甲\n", [(3, "parts.a", "must be a mapping (key: value)" + COLON)]),
        ("title: x\nparts:\n  a: {names: {}, kind: pesron}\n", [
            (3, "parts.a.kind", "'pesron' is not one of person, place; did you mean \"person\"?"),
        ]),
        ("title: x\nparts:\n  a: {names: {}, age: old}\n", [(3, "parts.a.age", "must be a whole number")]),
        ("title: x\n\n\nparts:\n  a:\n    names:\n      zh: 5\n", [
            (7, "parts.a.names.zh", "must be text (YAML reads it as the number 5: put it in quotes)"),
        ]),
        ("title: x\nmore: [1, 2]\n", [
            (2, "more.0", "must be a mapping (key: value)"),
            (2, "more.1", "must be a mapping (key: value)"),
        ]),
        ("- title\n", [(1, "", "must be a mapping (key: value)")]),
        ("5", [(1, "", "must be a mapping (key: value)")]),
        ("", [(1, "title", "is missing")]),
        ("# nothing\n", [(1, "title", "is missing")]),
    ],
)  # fmt: skip
def test_each_mistake_is_told_with_line_key_and_what_was_meant(
    tmp_path: Path, text: str, expected: list[tuple[int, str, str]]
) -> None:
    assert mistakes(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("title：灯\n", (1, "must be a mapping (key: value)" + COLON)),
        ("# 注：好\n\ntitle：灯\nversion：一\n", (3, "must be a mapping (key: value)" + COLON)),
        ("title: 灯\nversion：x\non: true\n", (2, "is not YAML: could not find expected ':'" + COLON)),
        ("title：灯\nlanguages: [zh]\n", (1, "is not YAML: mapping values are not allowed in this context" + COLON)),
        ("title: light\nparts:\n  a：\n    names: {}\n", (3, "is not YAML: mapping values are not allowed in this context" + COLON)),
        ("title: [a\nversion: x\n", (2, "is not YAML: did not find expected ',' or ']'")),
        ("title: 'a\n", (2, "is not YAML: found unexpected end of stream")),
        ("title: x\n\tversion: y\n", (2, "is not YAML: found a tab character that violates indentation")),
        ("title: *nobody\n", (1, "is not YAML: found undefined alias")),
        ("title: !!python/x y\n", (1, "is not YAML: could not determine a constructor for the tag 'tag:yaml.org,2002:python/x'")),
        ("title: a\n---\ntitle: b\n", (2, "is not YAML: but found another document")),
        (b"title: a\n" + "version: 灯塔\n".encode("gbk"), (2, "is not UTF-8; save the file as UTF-8")),
        ("title: 灯\n".encode("utf-16"), (1, "is not UTF-8; save the file as UTF-8")),
        ("version: 2024-13-45\n", (0, "cannot be read: month must be in 1..12")),
        ("version: 0b_\n", (0, "cannot be read: invalid literal for int() with base 2: ''")),
    ],
)  # fmt: skip
def test_a_file_that_is_no_yaml_is_told_with_the_line_at_fault(
    tmp_path: Path, text: str | bytes, expected: tuple[int, str]
) -> None:
    assert mistakes(tmp_path, text) == [(expected[0], "", expected[1])]


def test_a_control_character_is_told_on_one_line(tmp_path: Path) -> None:
    ((line, key, what),) = mistakes(tmp_path, "title: a\0b\n")
    assert (line, key) == (0, "")
    assert what.startswith("cannot be read: unacceptable character")
    assert "\n" not in what


def test_a_folder_or_nothing_in_place_of_the_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    for name, why in (("folder.yaml", "Is a directory"), ("none.yaml", "No such file or directory")):
        document = Document(tmp_path / name)
        assert document.check(Model) is None
        (problem,) = document.problems
        assert (problem.line, problem.key) == (0, "")
        assert problem.what.startswith("cannot be read: ") and why in problem.what


def test_a_key_that_stands_twice_is_told_each_time(tmp_path: Path) -> None:
    text = "title: 灯\ntitle: 塔\nparts:\n  a: {names: {}}\n  b: {names: {}}\n  a: {names: {zh: 甲, zh: 乙}}\n"
    assert sorted(mistakes(tmp_path, text)) == [
        (2, "", "the key 'title' stands there twice"),
        (6, "", "the key 'a' stands there twice"),
        (6, "", "the key 'zh' stands there twice"),
    ]


def test_keys_of_two_mappings_and_of_merged_ones_may_be_the_same(tmp_path: Path) -> None:
    text = "title: x\nmore:\n- &a {names: {zh: 甲}, age: 1}\n- {<<: *a, age: 2}\n- *a\n"
    document = read(tmp_path, text)
    model = document.check(Model)
    assert document.problems == []
    assert model is not None
    assert [part.age for part in model.more] == [1, 2, 1]


def test_windows_editors_do_no_harm(tmp_path: Path) -> None:
    document = read(tmp_path, '\ufefftitle: 灯塔\r\nversion: "1.10"\r\n')
    assert document.check(Model) == Model(title="灯塔", version="1.10")
    assert document.problems == []
    assert document.line(("version",)) == 2


def test_places_are_found_by_keys_and_positions(tmp_path: Path) -> None:
    document = read(tmp_path, "a:\n  - x\n  - b: 1\n    丙: 2\n5: e\n")
    places: list[tuple[int | str, ...]] = [
        (),
        ("a",),
        ("a", 0),
        ("a", 1),
        ("a", 1, "丙"),
        (5,),
        ("a", 7),
        ("no", "way"),
    ]
    assert [document.line(place) for place in places] == [1, 1, 2, 3, 4, 5, 1, 1]
    assert str(document.problem(("a", 1, "丙"), "好")) == f"{tmp_path / '角色.yaml'}:4: a.1.丙: 好"


def test_what_is_right_is_kept_when_something_is_wrong(tmp_path: Path) -> None:
    text = """\
version: 1.10
languages: [zh, no, en, 3]
parts:
  a: {names: {zh: 甲}, alias: []}
  b: {age: 3}
  c: {names: {zh: 丙, en: 3}, kind: x}
more:
- {names: {zh: 丁}, age: x, y: 1, z: 2}
- {z: 1}
- {names: {}}
"""
    document = read(tmp_path, text)
    model = document.check(Model, {"title": "stand-in", "version": "not this one"})
    assert len(document.problems) == 13
    assert model == Model(
        title="stand-in",
        version="not this one",
        languages=["zh", "en"],
        parts={"a": Part(names={"zh": "甲"}), "c": Part(names={"zh": "丙"})},
        more=[Part(names={"zh": "丁"}), Part(names={})],
    )


def test_nothing_is_kept_where_what_is_missing_has_no_stand_in(tmp_path: Path) -> None:
    assert read(tmp_path, "version: x\n").check(Model) is None


def test_deep_nesting_is_told_and_not_a_crash(tmp_path: Path) -> None:
    expected = [(0, "", "cannot be read: it is nested more than 64 levels deep")]
    assert mistakes(tmp_path, "title: " + "[" * 2000 + "]" * 2000) == expected
    assert mistakes(tmp_path, "title: " + "[" * 64 + "]" * 64) == expected
    assert mistakes(tmp_path, "title: " + "[" * 63 + "]" * 63) == [(1, "title", "must be text")]


def test_yaml_that_holds_itself_is_told(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "title: x\nparts: &a {b: *a}\n") == [
        (2, "parts.b.names", "is missing"),
        (2, "parts.b.b", "unknown key"),
    ]


def test_the_nearest_word_is_suggested_or_none() -> None:
    assert suggest("greetng", ["greeting", "voice"]) == '; did you mean "greeting"?'
    assert suggest("哈利·波持", ["哈利·波特", "罗恩"]) == '; did you mean "哈利·波特"?'
    assert suggest("x", ["greeting", "灯塔"]) == suggest("x", []) == suggest("", ["a"]) == ""
