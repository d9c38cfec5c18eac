"""Errors: one line that says what, which and where, and a hint of what next."""

from __future__ import annotations

from pathlib import Path

import pytest

from camelbell_core.errors import BundleError, CamelBellError, ModelMismatch, Problem, WorkspaceBusy

FILE = Path("characters") / "小灯" / "character.yaml"


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem(FILE, 3, "facts.0.id", "is missing"), f"{FILE}:3: facts.0.id: is missing"),
        (Problem(FILE, 3, "", "不是 UTF-8"), f"{FILE}:3: 不是 UTF-8"),
        (Problem(FILE, 0, "", "cannot be read"), f"{FILE}: cannot be read"),
        (Problem(FILE, 0, "name", "is missing"), f"{FILE}: name: is missing"),
    ],
)
def test_a_problem_is_told_with_file_line_and_key(problem: Problem, text: str) -> None:
    assert str(problem) == text


def test_a_bundle_error_tells_every_mistake_a_line() -> None:
    one, two = Problem(FILE, 1, "name", "is missing"), Problem(FILE, 9, "", "is not UTF-8")
    assert str(BundleError("小灯", [one])) == f"character '小灯' has 1 mistake:\n  {one}"
    error = BundleError("lumen", [one, two])
    assert error.message == f"character 'lumen' has 2 mistakes:\n  {one}\n  {two}"
    assert (error.hint, error.problems) == ("mend the lines above, then run again", [one, two])


def test_every_error_of_the_engine_is_caught_as_one_and_exits_with_2() -> None:
    errors = [CamelBellError("a", "b"), BundleError("c", []), WorkspaceBusy("d"), ModelMismatch("e")]
    assert all(isinstance(error, CamelBellError) and error.exit_code == 2 for error in errors)
    assert (errors[0].message, errors[0].hint, str(errors[0])) == ("a", "b", "a")
    assert errors[2].hint == ""
