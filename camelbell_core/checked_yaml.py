"""YAML files read safely, and checked so that every mistake is told with its file and line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from camelbell_core.errors import Problem

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
M = TypeVar("M", bound=BaseModel)
Path_ = tuple[int | str, ...]

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
    """One YAML file: its data, and the line of each place in it (worked out only when asked)."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.data: Any = None
        self._root: Any = None
        self._text = ""
        try:
            self._text = file.read_text(encoding="utf-8-sig")
            self.data = yaml.load(self._text, Loader)
        except UnicodeDecodeError as error:
            line = file.read_bytes()[: error.start].count(b"\n") + 1
            self.problems.append(Problem(file, line, "", "is not UTF-8; save the file as UTF-8"))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 0
            what = f"is not YAML: {error.problem or error.context}"
            self.problems.append(Problem(file, line, "", what + self._full_width_hint(line)))
        except (yaml.YAMLError, OSError) as error:
            self.problems.append(Problem(file, 0, "", f"cannot be read: {error}"))

    def line(self, place: Path_) -> int:
        """Return the line, from 1, of a place given as keys and list positions."""
        if self._root is None:
            self._root = yaml.compose(self._text, Loader) or False
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

    def check(self, model: type[M], data: Any = None, at: Path_ = ()) -> M | None:
        """Return the data as the model, or None with the mistakes added to ``problems``."""
        data = self.data if data is None else data
        if self.problems and data is None:
            return None
        if isinstance(data, str) and not at:
            first = next((i for i, t in enumerate(self._text.splitlines(), 1) if "：" in t), 1)
            self.problems.append(
                Problem(self.file, first, "", "must be a mapping (key: value)" + self._full_width_hint(first))
            )
            return None
        try:
            return model.model_validate({} if data is None else data)
        except ValidationError as error:
            self.problems.extend(
                self.problem(place, what) for place, what in explain(error, data, model, at, self._full_width_hint)
            )
            return None

    def _full_width_hint(self, line: int | str) -> str:
        text = (
            line
            if isinstance(line, str)
            else (self._text.splitlines()[line - 1] if 0 < line <= len(self._text.splitlines()) else "")
        )
        return "; a full-width colon '：' is not YAML, write ': '" if "：" in text else ""


def explain(
    error: ValidationError, data: Any, model: Any, at: Path_ = (), colon_hint: Any = lambda text: ""
) -> Iterable[tuple[Path_, str]]:
    """Yield place and words of each mistake that pydantic found."""
    seen: set[tuple[Path_, str]] = set()
    for item in error.errors(include_url=False):
        place = at + tuple(step for step in item["loc"] if not _is_type_tag(step))
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
