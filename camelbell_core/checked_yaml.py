"""YAML files read safely, and checked so that every mistake is told with its file and line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from camelbell_core.errors import Problem

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
M = TypeVar("M", bound=BaseModel)
Path_ = tuple[int | str, ...]
_FULL_WIDTH_KEY = re.compile(r"\s*(?:-\s+)*[^\s#'\"：:]+：")
_DEEPEST = 64  # levels; a bundle needs six, and Python gives up at some hundreds
_NOTHING = object()
_ROUNDS = 3  # how often what is wrong is left out before a file is given up

_PLAIN = {
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping (key: value)",
    "model_type": "must be a mapping (key: value)",
    "model_attributes_type": "must be a mapping (key: value)",
    "dataclass_type": "must be a mapping (key: value)",
    "missing": "is missing",
    "missing_argument": "is missing",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
}


class Document:
    """One YAML file: its data, its mistakes, and the line of each place in it."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.data: Any = None
        self._root: Any = None
        self._lines: list[str] = []
        try:
            text = file.read_text(encoding="utf-8-sig")
            self._lines = text.splitlines()
            self._load(text)
        except UnicodeDecodeError as error:
            line = file.read_bytes()[: error.start].count(b"\n") + 1
            self._wrong(line, "is not UTF-8; save the file as UTF-8")
        except yaml.MarkedYAMLError as error:
            line = self._broken_line(error)
            self._wrong(line, f"is not YAML: {error.problem or error.context}" + self._full_width_hint(line))
        except (yaml.YAMLError, OSError, ValueError) as error:
            # ValueError: a date or number that YAML recognises and Python cannot make, like 2024-13-45.
            self._wrong(0, "cannot be read: " + " ".join(str(error).split()))

    def _load(self, text: str) -> None:
        loader = Loader(text)
        try:
            self._root = loader.get_single_node()
            for key in _repeated_keys(self._root):  # which also refuses what is nested too deeply
                self._wrong(key.start_mark.line + 1, f"the key {key.value!r} stands there twice")
            self.data = loader.construct_document(self._root) if self._root else None
        finally:
            loader.dispose()

    def _wrong(self, line: int, what: str) -> None:
        self.problems.append(Problem(self.file, line, "", what))

    def line(self, place: Path_) -> int:
        """Return the line, from 1, of a place given as keys and list positions."""
        node, line = self._root, 1
        for step in place:
            found = _child(node, step)
            if found is None:
                break
            line, node = found
        return line

    def problem(self, place: Path_, what: str) -> Problem:
        """Return a mistake at a place of this file."""
        return Problem(self.file, self.line(place), ".".join(str(step) for step in place), what)

    def check(self, model: type[M], stand_ins: Mapping[str, Any] | None = None) -> M | None:
        """Return the data as the model, with the mistakes added to ``problems``.

        What is wrong is left out, and ``stand_ins`` take the place of top keys that are missing, so that
        the rest can be checked too; None where nothing can be made of the file.
        """
        if self.problems and self.data is None:
            return None
        if isinstance(self.data, str):
            first = next((i for i in range(1, len(self._lines) + 1) if self._full_width_hint(i)), 1)
            self._wrong(first, "must be a mapping (key: value)" + self._full_width_hint(first))
            return None
        data = {} if self.data is None else self.data
        try:
            return model.model_validate(data)
        except ValidationError as error:
            mistakes = list(explain(error, data, model, _full_width_hint))
            self.problems.extend(self.problem(place, what) for place, what in mistakes)
            return _saved(model, data, [place for place, _ in mistakes], stand_ins or {})

    def _broken_line(self, error: yaml.MarkedYAMLError) -> int:
        """Return the line that is at fault: YAML notices a full-width colon a line too late."""
        marks = [mark.line + 1 for mark in (error.context_mark, error.problem_mark) if mark]
        if not marks:
            return 0
        near = range(max(1, marks[-1] - 1), marks[-1] + 1)
        return next((line for line in (*marks, *near) if self._full_width_hint(line)), marks[-1])

    def _full_width_hint(self, line: int) -> str:
        return _full_width_hint(self._lines[line - 1]) if 0 < line <= len(self._lines) else ""


def _full_width_hint(text: str) -> str:
    return "; a full-width colon '：' is not YAML, write ': '" if _FULL_WIDTH_KEY.match(text) else ""


def _repeated_keys(root: Any) -> Iterator[Any]:
    """Yield the key nodes that repeat an earlier key of their mapping; YAML would take the last, silently."""
    todo, seen = [(root, 1)], set()
    while todo:
        node, depth = todo.pop()
        if id(node) in seen or not isinstance(node, yaml.CollectionNode):
            continue
        if depth > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} levels deep")
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            todo.extend((value, depth + 1) for value in node.value)
            continue
        keys: set[str] = set()
        for key, value in node.value:
            todo.append((value, depth + 1))
            if isinstance(key, yaml.ScalarNode) and key.value in keys:
                yield key
            keys.add(str(key.value))


def _saved(model: type[M], data: Any, wrong: Sequence[Path_], stand_ins: Mapping[str, Any]) -> M | None:
    """Return what is left of the data without the places that are wrong, or None."""
    for _ in range(_ROUNDS):
        data = _without(data, wrong, stand_ins)
        try:
            return model.model_validate(data)
        except ValidationError as error:
            wrong = [place for place, _ in explain(error, data, model)]
    return None


def _without(data: Any, places: Sequence[Path_], stand_ins: Mapping[str, Any]) -> Any:
    """Return a copy without the places; where one is missing, what lacks it goes, or a stand-in comes."""
    left = deepcopy(data)
    given = [(key,) for key in stand_ins if (key,) in places]
    if isinstance(left, dict):
        left |= {key: stand_ins[key] for (key,) in given}
    there = {target for place in places if place not in given and (target := _existing(left, place))}
    outer = [target for target in there if not any(target[:n] in there for n in range(1, len(target)))]
    # From the back, so that the positions in lists stay right.
    for target in sorted(outer, key=lambda t: [(isinstance(step, str), step) for step in t], reverse=True):
        del _at(left, target[:-1])[target[-1]]
    return left


def _existing(data: Any, place: Path_) -> Path_:
    """Return as much of a place as there is."""
    while place and _at(data, place) is _NOTHING:
        place = place[:-1]
    return place


def _at(data: Any, place: Path_) -> Any:
    for step in place:
        inner: Any = data if isinstance(data, dict | list) else {}
        try:
            data = inner[step]
        except (KeyError, IndexError, TypeError):
            return _NOTHING
    return data


def explain(
    error: ValidationError, data: Any, model: Any, colon_hint: Callable[[str], str] = lambda text: ""
) -> Iterable[tuple[Path_, str]]:
    """Yield place and words of each mistake that pydantic found."""
    seen: set[tuple[Path_, str]] = set()
    for item in error.errors(include_url=False):
        place = tuple(step for step in item["loc"] if not _is_type_tag(step))
        kind, value = item["type"], item.get("input")
        if kind in ("extra_forbidden", "unexpected_keyword_argument"):
            what = "unknown key" + suggest(str(item["loc"][-1]), _known_keys(model, item["loc"][:-1]))
        elif kind == "value_error":
            what = str(item["ctx"]["error"])
        elif kind == "literal_error":
            allowed = re.findall(r"'([^']*)'", item["ctx"]["expected"])
            what = f"{value!r} is not one of {', '.join(allowed)}" + suggest(str(value), allowed)
        else:
            what = _PLAIN.get(kind, item["msg"][:1].lower() + item["msg"][1:])
            what += _yaml_trap(value, kind) + (colon_hint(value) if isinstance(value, str) else "")
        if (place, what) not in seen:
            seen.add((place, what))
            yield place, what


def suggest(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean "x"?`` for the nearest known word, or nothing."""
    near = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else ""


def _yaml_trap(value: Any, kind: str) -> str:
    if kind == "string_type" and isinstance(value, bool):
        return f" (YAML reads no, off, yes, on as {str(value).lower()}: put it in quotes)"
    if kind == "string_type" and isinstance(value, int | float):
        return f" (YAML reads it as the number {value}: put it in quotes)"
    return ""


def _is_type_tag(step: int | str) -> bool:
    return isinstance(step, str) and (step in {"str", "int", "float", "bool"} or "[" in step or step.startswith("Part"))


def _known_keys(model: Any, loc: Sequence[int | str]) -> list[str]:
    """Return the keys allowed at a place of a pydantic model or a dataclass, as far as it can be followed."""
    from dataclasses import fields, is_dataclass
    from typing import get_args

    current: Any = model
    for step in loc:
        field = getattr(current, "model_fields", {}).get(step)
        if field is not None:
            current = field.annotation
        options = [current, *get_args(current), *(a for b in get_args(current) for a in get_args(b))]
        current = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), current)
    if is_dataclass(current):
        return [f.name for f in fields(current)]
    return list(getattr(current, "model_fields", {}))


def _child(node: Any, step: int | str) -> tuple[int, Any] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(step):
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark.line + 1, node.value[step]
    return None
