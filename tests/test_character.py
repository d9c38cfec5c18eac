"""Bundles: found without being read, read whole, and every mistake told at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from camelbell_core.character import (
    BundleRef,
    Character,
    Preset,
    check_name,
    data_dir,
    find_character,
    find_characters,
    in_order,
    names_of,
    part_name,
    read_character,
    search_path,
)
from camelbell_core.errors import BundleError, CamelBellError, Problem
from camelbell_core.names import unknown_names
from camelbell_core.records import Fact, Seed
from camelbell_core.registry import build_registry
from camelbell_core.slots import Value

COLON = "a full-width colon '：' is not YAML, write ': '"


def change(ref: BundleRef, file: str, *changes: tuple[str, str]) -> None:
    text = (ref.root / file).read_text(encoding="utf-8")
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (ref.root / file).write_text(text, encoding="utf-8")


def line_of(ref: BundleRef, file: str, text: str) -> int:
    lines = (ref.root / file).read_text(encoding="utf-8").splitlines()
    return max(number for number, line in enumerate(lines, 1) if text in line)


def mistakes(ref: BundleRef) -> list[str]:
    """Return the mistakes of a bundle as a person sees them, its folder left out."""
    registry = build_registry(ref)
    try:
        character = read_character(ref, registry.check)
    except BundleError as error:
        problems = error.problems
        assert [f"  {problem}" for problem in problems] == error.message.splitlines()[1:]
    else:
        problems = [*character.check(), *registry.check(character)]
    return [str(problem).removeprefix(f"{ref.root}/") for problem in problems]


# --- mistakes --------------------------------------------------------------------------------------


def test_all_mistakes_of_a_bundle_stand_in_one_message(small_bundle: BundleRef) -> None:
    change(
        small_bundle,
        "character.yaml",
        ("greeting:", "greetng:"),
        ("answers: canon   ", "answers: cannon   "),
        ("languages: [zh, en]", "languages: [zh, en, no]"),
        ("facts: 3 ", "version: 1.10\nfacts: 3 "),
    )
    change(
        small_bundle, "seeds/seeds.yaml", ("你喜欢[thing]吗", "你喜欢[thin]吗"), ("slots:\n", "slots:\n  pets: []\n")
    )
    (small_bundle.root / "seeds" / "old.yaml").write_bytes(
        b"seeds: []\nslots:\n  a:\n" + "  - {zh: 灯}\n".encode("gbk")
    )
    change(
        small_bundle,
        "canon/canon.yaml",
        ("about: [lumen, gull]", "about: [lumen, gul]"),
        ("id: steps", "source: 3-1\n    id: pet"),
        ("entities:\n", "timeline: {chapters: [4, 5]}\nentities:\n"),
    )
    (small_bundle.root / "canon" / "more.yaml").write_text("facts: []\nentities：\n  a: b\n", encoding="utf-8")
    with pytest.raises(BundleError) as caught:
        read_character(small_bundle, build_registry(small_bundle).check)

    def at(file: str, text: str) -> str:
        return f"{small_bundle.root / file}:{line_of(small_bundle, file, text)}"

    canon, config, seeds = "canon/canon.yaml", "character.yaml", "seeds/seeds.yaml"
    assert caught.value.message.splitlines() == [
        "character 'lumen' has 11 mistakes:",
        f"""  {at(canon, "gul]")}: facts.0.about: unknown entity 'gul'; did you mean "gull"?""",
        f"  {at(canon, '3-1')}: facts.1.source: there is no story time '3-1'"
        " (allowed: 1-1 to 2-5, as part-chapter, or a part)",
        f"  {at(canon, 'id: pet')}: facts.1.id: the id 'pet' is already taken",
        f"  {at('canon/more.yaml', '：')}: is not YAML: could not find expected ':'; {COLON}",
        f"  {at(config, 'languages:')}: languages.2: must be text"
        " (YAML reads no, off, yes, on as false: put it in quotes)",
        f"""  {at(config, "greetng:")}: greetng: unknown key; did you mean "greeting"?""",
        f"""  {at(config, "cannon")}: answers: there is no answer teacher 'cannon'; did you mean "canon"?""",
        f"  {at(config, 'version:')}: version: must be text (YAML reads it as the number 1.1: put it in quotes)",
        f"  {small_bundle.root / 'seeds/old.yaml'}:4: is not UTF-8; save the file as UTF-8",
        f"""  {at(seeds, "[thin]")}: seeds.0.ask.zh.0: unknown slot [thin]; did you mean "thing"?""",
        f"  {at(seeds, 'pets: []')}: slots.pets: the value list is empty",
    ]
    assert caught.value.hint == "mend the lines above, then run again"


def test_a_right_bundle_has_no_mistakes(small_bundle: BundleRef) -> None:
    assert mistakes(small_bundle) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("languages: [zh, en]", "language: no", [
            'language: unknown key; did you mean "languages"?',
            "languages: is missing",
        ]),
        ("filters: [length,", "filters: [lenght,", ["""filters.0: there is no filter 'lenght'; did you mean "length"?"""]),
        ("memory: canon", "memory: cannon", ["""memory: there is no memory 'cannon'; did you mean "canon"?"""]),
        ("frontend: repl", "frontend: rpel", ["""frontend: there is no chat frontend 'rpel'; did you mean "repl"?"""]),
        ("entity: lumen ", "entity: lumem ", ["""entity: unknown entity 'lumem'; did you mean "lumen"?"""]),
        ("facts: 3 ", "facts: many ", ["facts: must be a whole number"]),
        ("facts: 3 ", "facts: 33 ", ["facts: input should be less than or equal to 32"]),
        ("questions: 200", "questions: 0", ["presets.quick.questions: input should be greater than 0"]),
        ("{epochs: 2,", "{epoch: 2,", ["""presets.quick.trainer: trainers: lora: epoch: unknown key; did you mean "epochs"?"""]),
        ("questions: [canon, slots]", "questions: [{canon: {frame: 3}}]", [
            """questions.0: question generators: canon: frame: unknown key; did you mean "frames"?""",
        ]),
        ("questions: [canon, slots]", "questions: [{canon: , slots: }]", [
            "questions.0: name one part: `- name` or `- name: {option: value}`",
        ]),
        ("name: {zh: 小灯, en: Lumen} ", "name: {} ", ["name: must not be empty"]),
        ('unknown_name: ["{name}？我没听说过。"]', 'unknown_name: ["我没听说过。"]', [
            "voice.zh.unknown_name: '我没听说过。' must hold {name}",
        ]),
        ('unknown: ["这个我不知道。", "我一直守着灯塔，这事没听说过。"]', "unknown: []", ["voice.zh.unknown: must not be empty"]),
        ("  en: I am Lumen,", "  fr: I am Lumen,", ["persona: lacks the language en"]),
        ("languages: [zh, en] ", "languages: [zh, en, zh, fr] ", [
            "persona: lacks the language fr",
            *(f"canon.yaml entities.{name}: has no name in fr" for name in ("lumen", "gull")),
            *(f"canon.yaml facts.{n}.text: lacks the language fr" for n in (0, 1)),
        ]),
        ("base: embedded", "base: embedded\nbase: smollm2", ["the key 'base' stands there twice"]),
    ],
)  # fmt: skip
def test_a_mistake_in_character_yaml_is_told_with_what_was_meant(
    small_bundle: BundleRef, old: str, new: str, expected: list[str]
) -> None:
    change(small_bundle, "character.yaml", (old, new))
    told = []
    for text in mistakes(small_bundle):
        place, _, what = text.partition(": ")
        file, line = place.split(":")
        assert int(line) > 0
        told.append(what if file == "character.yaml" else f"{file.split('/')[-1]} {what}")
    assert sorted(told) == sorted(expected)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[stranger]是谁", "[strangr]是谁", """seeds.1.ask.zh.0: unknown slot [strangr]; did you mean "stranger"?"""),
        ("Do you know [stranger]", "Do you know [x]", "seeds.1.ask.en.1: unknown slot [x]"),
        ("name: stranger", "name: like_thing", "seeds.1.name: the seed 'like_thing' stands there twice"),
        ('en: ["Do you like [thing]?"]', 'fr: ["x"]', "seeds.0.ask.fr: is not a language of this character"),
        ("kind: opinion", "kin: opinion", 'seeds.0.kin: unknown key; did you mean "kind"?'),
        ("entity: gull", "entity: gul", """slots.thing.0: unknown entity 'gul'; did you mean "gull"?"""),
        ("{zh: 热茶, en: hot tea}", "{zh: 热茶, ne: hot tea}", "slots.thing.2: unknown key 'ne'"),
        ("{zh: 热茶, en: hot tea}", "{source: x}", "slots.thing.2: has no words in zh, en"),
        ("{zh: 热茶, en: hot tea}", '{zh: " "}', "slots.thing.2: has no words in zh, en"),
        ("{zh: 热茶, en: hot tea}", "{zh: 热茶, en: }", "slots.thing.2.en: must be text"),
        ("{zh: 热茶, en: hot tea}", "{zh: 热茶, en: on}", "slots.thing.2.en: must be text"
         " (YAML reads no, off, yes, on as true: put it in quotes)"),
        ("{zh: 热茶, en: hot tea}", "{zh: 007, en: Bond}", "slots.thing.2.zh: must be text"
         " (YAML reads it as the number 7: put it in quotes)"),
        ("  thing:\n", "  thing：\n", f"is not YAML: mapping values are not allowed in this context; {COLON}"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_seeds_is_told_with_its_line(
    small_bundle: BundleRef, old: str, new: str, expected: str
) -> None:
    change(small_bundle, "seeds/seeds.yaml", (old, new))
    line = line_of(small_bundle, "seeds/seeds.yaml", new.rstrip())
    assert mistakes(small_bundle) == [f"seeds/seeds.yaml:{line}: {expected}"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"name\xef\xbc\x9aLumen\n", f"character.yaml:1: must be a mapping (key: value); {COLON}"),
        ("name: {zh: 灯}\n".encode("gb18030"), "character.yaml:1: is not UTF-8; save the file as UTF-8"),
        (b"- name\n", "character.yaml:1: must be a mapping (key: value)"),
    ],
)
def test_a_character_yaml_that_is_none_hides_no_mistake_of_the_other_files(
    small_bundle: BundleRef, text: bytes, expected: str
) -> None:
    (small_bundle.root / "character.yaml").write_bytes(text)
    change(small_bundle, "canon/canon.yaml", ("id: steps", "id: pet"))
    change(small_bundle, "seeds/seeds.yaml", ("seeds:\n", "sed: []\nseeds:\n"))
    assert sorted(mistakes(small_bundle)) == [
        "canon/canon.yaml:21: facts.1.id: the id 'pet' is already taken",
        expected,
        'seeds/seeds.yaml:2: sed: unknown key; did you mean "seeds"?',
    ]


def test_an_empty_character_yaml_tells_what_must_be_there(small_bundle: BundleRef) -> None:
    (small_bundle.root / "character.yaml").write_text("", encoding="utf-8")
    missing = [f"character.yaml:1: {key}: is missing" for key in ("name", "languages")]
    assert [text for text in mistakes(small_bundle) if text.startswith("character.yaml")] == missing


def test_mistakes_come_by_file_and_line_each_once() -> None:
    a, b, c = (Problem(Path(file), line, "", "x") for file, line in (("a", 9), ("a", 10), ("b", 1)))
    assert in_order([c, b, a, b]) == [a, b, c]


# --- what a bundle says ----------------------------------------------------------------------------


def test_a_bundle_is_read_whole(small_bundle: BundleRef) -> None:
    character = read_character(small_bundle)
    assert character.check() == []
    assert (character.name, character.root, character.languages) == ("lumen", small_bundle.root, ["zh", "en"])
    assert [character.title(language) for language in ("zh", "en", "fr")] == ["小灯", "Lumen", "小灯"]
    assert character.seeds == [
        Seed("like_thing", "opinion", {"zh": ("你喜欢[thing]吗？",), "en": ("Do you like [thing]?",)}),
        Seed(
            "stranger",
            "trap",
            {
                "zh": ("[stranger]是谁？", "你认识[stranger]吗？"),
                "en": ("Who is [stranger]?", "Do you know [stranger]?"),
            },
        ),
    ]
    assert character.slots == {
        "thing": [
            Value({"zh": "阿白", "en": "Pebble"}, "gull"),
            Value({"zh": "暴风雨", "en": "storms"}),
            Value({"zh": "热茶", "en": "hot tea"}),
        ],
        "stranger": [
            Value({"zh": "莫格里斯", "en": "Mogris"}, source="invented"),
            Value({"zh": "塔维娜", "en": "Tavina"}, source="invented"),
        ],
    }
    assert list(character.canon.facts) == ["pet", "steps"]


def test_invented_values_are_unknown_and_all_others_known(small_bundle: BundleRef) -> None:
    change(small_bundle, "seeds/seeds.yaml", ("热茶", "维斯珀"), ("hot tea", "Vesper"))
    canon = read_character(small_bundle).canon
    for text, unknown in (("莫格里斯和维斯珀", ["莫格里斯"]), ("I met Tavina and Vesper", ["Tavina"])):
        assert unknown_names(text, canon.names, canon.vocabulary) == unknown


def test_values_of_the_bundle_are_filled_in_by_language(small_bundle: BundleRef) -> None:
    change(
        small_bundle,
        "character.yaml",
        ("base: embedded", "base: embedded\nvalues: {island: {zh: 雾岛, en: Fog Isle}, year: '1899'}"),
    )
    change(
        small_bundle,
        "seeds/seeds.yaml",
        ("你喜欢[thing]", "{year}年{island}有[thing]"),
        ("Do you like [thing]", "Is [thing] on {island} in {year}, {who}"),
    )
    character = read_character(small_bundle)
    assert character.seeds[0].texts == {
        "zh": ("1899年雾岛有[thing]吗？",),
        "en": ("Is [thing] on Fog Isle in 1899, {who}?",),
    }
    assert character.fill("{island}{nothing}", "fr") == "雾岛{nothing}"


def test_a_hand_written_answer_is_a_fact_of_the_character(small_bundle: BundleRef) -> None:
    change(small_bundle, "seeds/seeds.yaml", ("    kind: opinion\n", "    answer: {zh: 喜欢。, en: I do.}\n"))
    character = read_character(small_bundle)
    texts = {"zh": ("你喜欢[thing]吗？",), "en": ("Do you like [thing]?",)}
    answers = {"zh": "喜欢。", "en": "I do."}
    assert character.canon.facts["seed-like_thing"] == Fact("seed-like_thing", (), answers, answers, texts)


def test_seeds_of_plugins_come_after_those_of_the_files(small_bundle: BundleRef) -> None:
    character = read_character(small_bundle)
    extra = Seed("extra", "open", {"zh": ("？",)})
    character.extra_seeds.append(extra)
    assert [seed.name for seed in character.seeds] == ["like_thing", "stranger", "extra"]


def test_one_language_is_enough(tmp_path: Path) -> None:
    for language, persona in (("zh", "我是灯。"), ("en", "I am a lamp.")):
        root = tmp_path / language
        root.mkdir()
        text = f"name: {{{language}: x}}\nlanguages: [{language}]\npersona: {{{language}: {persona}}}\n"
        (root / "character.yaml").write_text(text, encoding="utf-8")
        ref = BundleRef(language, root, "test")
        assert mistakes(ref) == []
        character = read_character(ref)
        assert (character.seeds, character.slots, character.canon.facts) == ([], {}, {})


def test_presets_are_the_bundles_own_or_the_engines(small_bundle: BundleRef) -> None:
    character = read_character(small_bundle)
    assert character.preset("quick") == Preset(questions=200, trainer={"epochs": 2, "learning_rate": 1e-3})
    assert character.preset("full") == Preset(questions=6000)
    with pytest.raises(CamelBellError) as caught:
        character.preset("quik")
    assert caught.value.message == "lumen has no preset 'quik'; did you mean \"quick\"?"
    assert caught.value.hint == "one of: quick, full"


# --- finding bundles -------------------------------------------------------------------------------


def bundle(folder: Path, name: str, text: str = "name: {zh: 灯}") -> Path:
    root = folder / name
    root.mkdir(parents=True)
    (root / "character.yaml").write_text(text, encoding="utf-8")
    return root


def test_the_first_place_that_holds_a_name_wins(
    tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {
        "--characters": tmp_path / "extra",
        "./characters": tmp_path / "characters",
        "user": own_home / "characters",
    }
    for number, folder in enumerate(places.values()):
        for name in ("灯", "b", "c")[number:]:
            bundle(folder, name)
    found = find_characters([tmp_path / "extra"])
    assert {name: (ref.origin, ref.root) for name, ref in found.items() if ref.origin != "installed"} == {
        name: ("--characters", tmp_path / "extra" / name) for name in ("灯", "b", "c")
    }
    found = find_characters()
    assert [found[name].origin for name in ("b", "c")] == ["./characters", "./characters"]
    assert "灯" not in found
    assert {ref.origin for ref in found.values()} == {"./characters", "installed"}
    assert [origin for origin, _ in search_path([Path("x"), Path("y")])][:4] == [
        "--characters",
        "--characters",
        "./characters",
        "user",
    ]


def test_shipped_characters_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert {"harry_potter", "instruct"} <= find_characters().keys()


def test_finding_a_bundle_runs_and_reads_nothing_of_it(tmp_path: Path) -> None:
    root = bundle(tmp_path / "all", "broken", "\0 not yaml：")
    (root / "plugin.py").write_text("raise SystemExit('this was run')", encoding="utf-8")
    (tmp_path / "all" / "no_bundle").mkdir()
    (tmp_path / "all" / "file").write_text("", encoding="utf-8")
    found = find_characters([tmp_path / "all"])
    assert [ref for ref in found.values() if ref.origin == "--characters"] == [
        BundleRef("broken", root, "--characters")
    ]
    assert found["broken"].plugin == root / "plugin.py"
    with pytest.raises(BundleError):
        read_character(found["broken"])


def test_a_bundle_without_plugin_py_is_data(small_bundle: BundleRef) -> None:
    assert small_bundle.plugin is None
    (small_bundle.root / "plugin.py").mkdir()
    assert small_bundle.plugin is None


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("lumem", """there is no character 'lumem'; did you mean "lumen"?""", "camelbell new lumem"),
        ("小灯灯", "there is no character '小灯灯'", "camelbell new NAME"),
        ("", "there is no character ''", "camelbell new NAME"),
        ("../lumen", """there is no character '../lumen'; did you mean "lumen"?""", "camelbell new NAME"),
    ],
)
def test_a_character_that_is_not_there_is_told(small_bundle: BundleRef, name: str, message: str, hint: str) -> None:
    with pytest.raises(CamelBellError) as caught:
        find_character(name, [small_bundle.root.parent])
    assert caught.value.message == message
    assert caught.value.hint == f"see `camelbell characters`, or make one: `{hint}`"


def test_a_folder_of_bundles_that_is_not_there_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for name in ("nowhere", "file"):
        with pytest.raises(CamelBellError) as caught:
            find_characters([tmp_path / name])
        assert caught.value.message == f"there is no folder {str(tmp_path / name)!r}"


def test_camelbell_home_names_the_data_folder(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert data_dir() == own_home
    monkeypatch.delenv("CAMELBELL_HOME")
    assert data_dir().name == "camelbell"


# --- names and parts -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "0", "harry_potter", "my-lamp2"])
def test_a_folder_name_is_lower_case_latin(name: str) -> None:
    assert check_name(name) == name


def test_a_part_is_chosen_by_name_perhaps_with_options() -> None:
    refs: list[Any] = ["canon", {"slots": {"near": 0.9}}, {"import": None}]
    assert [part_name(ref) for ref in refs] == [("canon", {}), ("slots", {"near": 0.9}), ("import", {})]
    assert names_of(refs) == ["canon", "slots", "import"]


@pytest.mark.parametrize("ref", [{}, {"a": None, "b": None}, {"": {}}])
def test_a_choice_of_no_part_or_of_two_is_refused(ref: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="name one part"):
        part_name(ref)


def test_more_mistakes_are_asked_for_only_when_character_yaml_is_wrong(small_bundle: BundleRef) -> None:
    asked: list[Character] = []
    more: Callable[[Character], list[Problem]] = lambda c: asked.append(c) or []  # noqa: E731
    read_character(small_bundle, more)
    assert asked == []
    change(small_bundle, "character.yaml", ("greeting:", "greetng:"))
    with pytest.raises(BundleError):
        read_character(small_bundle, more)
    assert [character.languages for character in asked] == [["zh", "en"]]
