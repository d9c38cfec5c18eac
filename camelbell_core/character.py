"""Bundles: finding them, reading them, and checking them before any work."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from camelbell_core.canon import Canon, read_canon
from camelbell_core.checked_yaml import Document, suggest
from camelbell_core.dialogues import read_dialogues
from camelbell_core.errors import BundleError, CamelBellError, Problem
from camelbell_core.kept import Kept
from camelbell_core.records import Fact, Question, Seed
from camelbell_core.slots import Value, slot_names

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
PartRef = str | dict[str, dict[str, Any] | None]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Voice(_Strict):
    """How the character speaks in one language when there is little to say."""

    unknown: list[str] = Field(min_length=1)
    unknown_name: list[str] = []
    about: list[str] = []

    @field_validator("unknown_name")
    @classmethod
    def _holds_name(cls, value: list[str]) -> list[str]:
        for text in value:
            if "{name}" not in text:
                raise ValueError(f"{text!r} must hold {{name}}")
        return value


class Preset(_Strict):
    """How much work ``run`` and ``train`` do under one name."""

    questions: int = Field(gt=0)
    quiz: int = Field(default=0, ge=0)
    base: str = ""
    trainer: dict[str, Any] = {}


class CharacterConfig(_Strict):
    """What stands in character.yaml."""

    name: dict[str, str] = Field(min_length=1)
    languages: list[str] = Field(min_length=1)
    persona: dict[str, str] = {}
    voice: dict[str, Voice] = {}
    greeting: dict[str, str] = {}
    description: str = ""
    version: str = ""
    license: str = ""
    entity: str = ""
    values: dict[str, str | dict[str, str]] = {}
    base: str = "embedded"
    quantize: Literal["", "8bit", "4bit"] = ""
    facts: int = Field(default=4, ge=0, le=32)
    questions: list[PartRef] = ["canon", "slots"]
    answers: PartRef = "canon"
    memory: PartRef = "canon"
    filters: list[PartRef] = ["length", "language", "persona_break", "duplicates"]
    guard: list[PartRef] = ["length", "language", "persona_break"]
    trainer: PartRef = "lora"
    frontend: PartRef = "repl"
    presets: dict[str, Preset] = {}


class SeedRow(_Strict):
    """One entry under ``seeds:``."""

    name: str
    kind: str = "open"
    ask: dict[str, list[str]]
    answer: dict[str, str] = {}


class ValueRow(BaseModel):
    """One entry of a value list: words by language, and an entity or a source where it has one."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, str]
    entity: str = ""
    source: str = ""


class SeedFile(_Strict):
    """A file of seeds/."""

    seeds: list[SeedRow] = []
    slots: dict[str, list[ValueRow]] = {}


INVENTED = "invented"  # the source of slot values that exist in no canon, on purpose

DEFAULT_PRESETS = {
    "quick": Preset(questions=400, quiz=24),
    "full": Preset(questions=6000),
}


@dataclass(frozen=True, slots=True)
class BundleRef:
    """A bundle that was found; nothing of it has been read or run."""

    name: str
    root: Path
    origin: str

    @property
    def plugin(self) -> Path | None:
        """The bundle's own plugin file, if it has one: such a bundle is code."""
        file = self.root / "plugin.py"
        return file if file.is_file() else None


class Character:
    """A bundle that was read: configuration, seeds, value lists and canon."""

    def __init__(self, ref: BundleRef, config: CharacterConfig, document: Document) -> None:
        self.ref = ref
        self.config = config
        self.document = document
        self.problems: list[Problem] = []
        self.extra_seeds: list[Seed] = []
        self._found_right = False  # this very state of the bundle, at an earlier start

    @property
    def name(self) -> str:
        """The name of the folder, by which commands know the character."""
        return self.ref.name

    @property
    def root(self) -> Path:
        """The folder of the bundle."""
        return self.ref.root

    @property
    def languages(self) -> list[str]:
        """The languages that the character speaks, the main one first."""
        return self.config.languages

    def title(self, language: str) -> str:
        """Return the character's own name in a language."""
        names = self.config.name
        return names.get(language) or next(iter(names.values()))

    def fill(self, text: str, language: str) -> str:
        """Return the text with ``{key}`` replaced by the bundle's ``values`` in a language."""
        for key, value in self.config.values.items():
            words = value if isinstance(value, str) else value.get(language) or next(iter(value.values()), "")
            text = text.replace("{" + key + "}", words)
        return text

    def preset(self, name: str) -> Preset:
        """Return a preset of the bundle, or the engine's own of that name."""
        known = {**DEFAULT_PRESETS, **self.config.presets}
        if name not in known:
            raise CamelBellError(
                f"{self.name} has no preset {name!r}" + suggest(name, known), f"one of: {', '.join(known)}"
            )
        return known[name]

    @cached_property
    def _seed_files(self) -> list[tuple[Document, SeedFile]]:
        documents = [Document(file) for file in sorted((self.root / "seeds").rglob("*.yaml"))]
        read = [(document, row) for document in documents if (row := document.check(SeedFile)) is not None]
        for document in documents:
            self.problems.extend(document.problems)
        return read

    @cached_property
    def slots(self) -> dict[str, list[Value]]:
        """The value lists by slot name, of all files."""
        lists: dict[str, list[Value]] = {}
        for document, file in self._seed_files:
            for slot, rows in file.slots.items():
                if not rows:
                    self.problems.append(document.problem(("slots", slot), "the value list is empty"))
                for number, row in enumerate(rows):
                    words = row.__pydantic_extra__
                    texts = {key: value for key, value in words.items() if key in self.languages and value.strip()}
                    unknown = set(words) - set(self.languages)
                    if unknown or not texts:
                        key = sorted(unknown)[0] if unknown else ""
                        what = f"unknown key {key!r}" if key else f"has no words in {', '.join(self.languages)}"
                        self.problems.append(document.problem(("slots", slot, number), what))
                    lists.setdefault(slot, []).append(Value(texts, row.entity, row.source))
        return lists

    @cached_property
    def own_seeds(self) -> list[Seed]:
        """The seeds that stand in the bundle's own files, with the bundle's values filled in."""
        seeds: dict[str, Seed] = {}
        for document, file in self._seed_files:
            for number, row in enumerate(file.seeds):
                place = ("seeds", number)
                if row.name in seeds:
                    self.problems.append(
                        document.problem((*place, "name"), f"the seed {row.name!r} stands there twice")
                    )
                texts = {lang: tuple(self.fill(t, lang) for t in asks) for lang, asks in row.ask.items()}
                for language in set(texts) - set(self.languages):
                    self.problems.append(
                        document.problem((*place, "ask", language), "is not a language of this character")
                    )
                for language, asks in texts.items():
                    for at, template in enumerate(asks):
                        for slot in (slot for slot in slot_names(template) if slot not in self.slots):
                            what = f"unknown slot [{slot}]" + suggest(slot, self.slots)
                            self.problems.append(document.problem((*place, "ask", language, at), what))
                answers = {lang: self.fill(text, lang) for lang, text in row.answer.items()}
                seeds[row.name] = Seed(row.name, row.kind, texts, answers)
        return list(seeds.values())

    @property
    def seeds(self) -> list[Seed]:
        """All seeds: those of the bundle's files and those that plugins add."""
        return [*self.own_seeds, *self.extra_seeds]

    @cached_property
    def _kept(self) -> Kept:
        return Kept(self.root, self.seeds, data_dir() / "bundles")

    @property
    def digest(self) -> str:
        """A hash of all that the canon and the dialogues are made of."""
        return self._kept.digest

    @cached_property
    def canon(self) -> Canon:
        """The canon; a hand-written answer counts as a fact of the character too."""
        canon = self._kept.canon()
        self._found_right = canon is not None
        if canon is None:
            known = [*self.config.name.values(), *(self.fill(p, lang) for lang, p in self.config.persona.items())]
            values = (value for values in self.slots.values() for value in values if value.source != INVENTED)
            known += (text for value in values for text in value.texts.values())
            canon, problems = read_canon(self.root / "canon", self.languages, "\n".join(known), self.config.entity)
            self.problems.extend(problems)
        for seed in self.seeds:
            if seed.answers:
                fact = Fact(id=f"seed-{seed.name}", about=(), text=seed.answers, voice=seed.answers, ask=seed.texts)
                canon.facts[fact.id] = fact
        if self.config.entity and self.config.entity not in canon.entities:
            what = f"unknown entity {self.config.entity!r}" + suggest(self.config.entity, canon.entities)
            self.problems.append(self.document.problem(("entity",), what))
        if words := self._kept.vocabulary():
            canon.__dict__["vocabulary"] = words  # in the place of what it would work out
        return canon

    @cached_property
    def dialogues(self) -> list[Question]:
        """The questions of the bundle's dialogue files, and those that the canon's relations give."""
        canon = self.canon
        kept = self._kept.dialogues() if self._found_right else None
        return [*(self._read_dialogues() if kept is None else kept), *canon.questions]

    def _read_dialogues(self) -> list[Question]:
        questions, problems = read_dialogues(self.root / "dialogues", self.canon, self.languages)
        self.problems.extend(problems)
        filled = []
        for q in questions:
            text, answer, *said = (self.fill(words, q.language) for words in (q.text, q.answer, *q.history))
            filled.append(replace(q, text=text, answer=answer, history=tuple(said)))
        return filled

    @cached_property
    def answers_by_fact(self) -> dict[str, list[Question]]:
        """The dialogues that answer a right question about a fact in words of their own, by the fact's id."""
        found: dict[str, list[Question]] = {}
        for question in self.dialogues:
            if question.answer and question.facts and question.kind == "fact" and not question.history:
                found.setdefault(question.facts[0], []).append(question)
        return found

    def check(self) -> list[Problem]:
        """Read everything and return every mistake, by file and line."""
        for language in self.languages:
            if self.config.persona and not self.config.persona.get(language):
                self.problems.append(self.document.problem(("persona",), f"lacks the language {language}"))
        _ = self.slots, self.own_seeds, self.canon
        if not self._found_right:
            _ = self.dialogues
        for document, file in self._seed_files:
            for slot, rows in file.slots.items():
                for number, row in enumerate(rows):
                    if row.entity and row.entity not in self.canon.entities:
                        what = f"unknown entity {row.entity!r}" + suggest(row.entity, self.canon.entities)
                        self.problems.append(document.problem(("slots", slot, number), what))
        if not self._found_right and not self.problems:
            self._kept.keep(self.canon, self.dialogues, {f"seed-{seed.name}" for seed in self.seeds if seed.answers})
            self._found_right = True
        return in_order(self.problems)


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Return the mistakes by file and line, each once."""
    return sorted(dict.fromkeys(problems), key=lambda p: (str(p.file), p.line))


def data_dir() -> Path:
    """Return the user's data folder; ``CAMELBELL_HOME`` names another."""
    home = os.environ.get("CAMELBELL_HOME")
    if home:
        return Path(home)
    from platformdirs import user_data_path

    return user_data_path("camelbell")


def search_path(extra: Sequence[Path] = ()) -> list[tuple[str, Path]]:
    """Return where bundles are looked for, first match wins, with a word for each place."""
    places = [("--characters", folder) for folder in extra]
    places += [("./characters", Path("characters")), ("user", data_dir() / "characters")]
    spec = find_spec("camelbell_characters")
    installed = list(spec.submodule_search_locations or ()) if spec else []
    return [*places, *(("installed", Path(folder)) for folder in installed)]


def find_characters(extra: Sequence[Path] = ()) -> dict[str, BundleRef]:
    """Return the bundles by name; no file of theirs but the folder listing is read."""
    found: dict[str, BundleRef] = {}
    for origin, folder in search_path(extra):
        if origin == "--characters" and not folder.is_dir():
            raise CamelBellError(f"there is no folder {str(folder)!r}", "name a folder that holds bundles")
        for file in sorted(folder.glob("*/character.yaml")):
            found.setdefault(file.parent.name, BundleRef(file.parent.name, file.parent.resolve(), origin))
    return found


def find_character(name: str, extra: Sequence[Path] = ()) -> BundleRef:
    """Return one bundle by its name."""
    found = find_characters(extra)
    if name not in found:
        raise CamelBellError(
            f"there is no character {name!r}" + suggest(name, found),
            "see `camelbell characters`, or make one: `camelbell new "
            + (name if _NAME.fullmatch(name) else "NAME")
            + "`",
        )
    return found[name]


def read_character(ref: BundleRef, more: Callable[[Character], Iterable[Problem]] = lambda character: ()) -> Character:
    """Read a bundle's character.yaml; the rest is read when it is first used.

    If character.yaml has mistakes, the error tells those of the other files too, and those that ``more`` finds.
    """
    document = Document(ref.root / "character.yaml")
    config = document.check(CharacterConfig, _stand_ins(ref, document.data))
    if config is None:
        raise BundleError(ref.name, [*document.problems, *_other_problems(ref)])
    character = Character(ref, config, document)
    if document.problems:
        raise BundleError(ref.name, in_order([*document.problems, *character.check(), *more(character)]))
    return character


def _stand_ins(ref: BundleRef, data: Any) -> dict[str, Any]:
    """Return what takes the place of keys that must be there, so that the rest of a bundle can be checked."""
    known = data if isinstance(data, dict) else {}
    for languages in (known.get("languages"), known.get("persona"), known.get("name")):
        spoken = [item for item in languages if isinstance(item, str)] if isinstance(languages, list | dict) else []
        if spoken:
            break
    else:
        spoken = ["en"]
    return {"name": {spoken[0]: ref.name}, "languages": spoken, "persona": dict.fromkeys(spoken, ref.name)}


def _other_problems(ref: BundleRef) -> list[Problem]:
    """Return the mistakes of seeds and canon that can be told without character.yaml."""
    documents = [Document(file) for file in sorted((ref.root / "seeds").rglob("*.yaml"))]
    for document in documents:
        document.check(SeedFile)
    _, canon_problems = read_canon(ref.root / "canon", ())
    return [*(problem for document in documents for problem in document.problems), *canon_problems]


def check_name(name: str) -> str:
    """Return the name of a new bundle if it can be a folder and a module name."""
    if not _NAME.fullmatch(name):
        raise CamelBellError(
            f"{name!r} cannot be a character's folder name", "use a-z, 0-9, _ and -, a letter or digit first"
        )
    return name


def part_name(ref: PartRef) -> tuple[str, Mapping[str, Any]]:
    """Return the name and the options of a part as the YAML chooses it."""
    if isinstance(ref, str):
        return ref, {}
    (name, options), *more = ref.items() or [("", {})]
    if more or not name:
        raise ValueError("name one part: `- name` or `- name: {option: value}`")
    return name, options or {}


def names_of(refs: Iterable[PartRef]) -> list[str]:
    """Return the names of the parts chosen."""
    return [part_name(ref)[0] for ref in refs]
