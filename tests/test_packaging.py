"""A plugin package of a stranger, built and installed by pip; and what our own wheel is told to hold."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]

PYPROJECT = """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "camelbell-lighthouse"
version = "0.3"

[project.entry-points.camelbell]
lighthouse_words = "lighthouse.words"
lighthouse_post = "lighthouse.post"

[tool.setuptools]
packages = ["lighthouse"]
"""
WORDS = '''
"""A filter of a stranger."""

from dataclasses import dataclass
from typing import ClassVar

from camelbell_core import hookimpl
from camelbell_core.records import Pair, Verdict
from camelbell_core.roles import Filter


@dataclass(kw_only=True)
class Words(Filter):
    """Rejects answers that hold one of some words."""

    name: ClassVar[str] = "words"
    forbidden: tuple[str, ...] = ()

    def judge(self, pair: Pair) -> Verdict:
        """Look for the first of them."""
        found = [word for word in self.forbidden if word in pair.answer]
        return Verdict(self.name, f"says {found[0]}" if found else "")


@hookimpl
def register_filters() -> list[type[Filter]]:
    """Offer it."""
    return [Words]
'''
POST = '''
"""A chat frontend of a stranger, and a base model that repeats the last fact of its prompt."""

from dataclasses import dataclass
from typing import ClassVar

from camelbell_core import hookimpl
from camelbell_core.roles import BaseModel, ChatFrontend, LanguageModel


@dataclass(kw_only=True)
class Postcards(ChatFrontend):
    """Answers postcards, which are given as an option."""

    name: ClassVar[str] = "postcards"
    cards: tuple[str, ...] = ()

    def run(self, session):
        """Print each card with its answer."""
        for card in self.cards:
            print(f"{card} -> {session.ask(card)}")


class Echo(LanguageModel):
    """Says the last fact."""

    name = "echo"

    def stream(self, prompt, max_tokens, temperature=0.0, stop=None):
        """Yield it."""
        yield prompt.facts[-1].split(" | ")[-1] if prompt.facts else "..."


@dataclass(kw_only=True)
class EchoBase(BaseModel):
    """`echo`, which needs no weights."""

    name: ClassVar[str] = "echo"

    def accepts(self, base):
        """Tell whether it is meant."""
        return base == "echo"

    def load(self, base, adapter=None):
        """Open it."""
        return Echo()

    def load_trainable(self, base):
        """Refuse."""
        raise NotImplementedError


@hookimpl
def register_chat_frontends():
    """Offer the frontend."""
    return [Postcards]


@hookimpl
def register_base_models():
    """Offer the model."""
    return [EchoBase]
'''


def pip(*arguments: object) -> None:
    """Run pip without the network."""
    subprocess.run(
        [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", *map(str, arguments)],
        check=True,
        env={**os.environ, "PIP_NO_INDEX": "1"},
        capture_output=True,
    )


@pytest.fixture
def lighthouse(tmp_path: Path) -> Path:
    """Build the package into a wheel and install it where the ``camelbell`` fixture looks; return that folder."""
    source = tmp_path / "source"
    for name, text in {
        "pyproject.toml": PYPROJECT,
        "lighthouse/__init__.py": "",
        "lighthouse/words.py": WORDS,
        "lighthouse/post.py": POST,
    }.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text, encoding="utf-8")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path / "dist", source)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    assert wheel.name == "camelbell_lighthouse-0.3-py3-none-any.whl"
    pip("install", "--no-deps", "--target", tmp_path / "site", wheel)
    return tmp_path / "site"


def test_an_installed_package_offers_a_filter_and_a_frontend_that_a_new_bundle_names(
    lighthouse: Path, tmp_path: Path, camelbell: Any
) -> None:
    listing = json.loads(camelbell("plugins", "--json").stdout)
    mine = {p["name"]: p for p in listing["plugins"] if p["source"] == "camelbell-lighthouse"}
    assert {name: (p["version"], p["hooks"], p["error"]) for name, p in mine.items()} == {
        "lighthouse_words": ("0.3", ["register_filters"], ""),
        "lighthouse_post": ("0.3", ["register_base_models", "register_chat_frontends"], ""),
    }
    assert listing["parts"]["filters"]["words"] == "Rejects answers that hold one of some words."
    assert listing["parts"]["chat_frontends"]["postcards"] == "Answers postcards, which are given as an option."

    assert camelbell("new", "lumen").returncode == 0
    config = tmp_path / "characters" / "lumen" / "character.yaml"
    text = config.read_text(encoding="utf-8")
    for old, new in {
        "filters: [": "filters: [words: {forbidden: [海鸥, gull]}, ",
        "guard: [": "guard: [words: {forbidden: [海鸥, gull]}, ",
        "frontend: repl": "frontend: {postcards: {cards: [灯塔有多少级台阶？, What is your pet called?]}}",
        "base: embedded": "base: echo",
    }.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    config.write_text(text, encoding="utf-8")
    run = tmp_path / "run"
    for command in (["questions", "lumen", "-n", 8], ["answers", "lumen"]):
        assert camelbell(*command, "--workspace", run).returncode == 0
    done = camelbell("filter", "lumen", "--workspace", run)
    rejected = [json.loads(line) for line in (run / "rejected.jsonl").read_text(encoding="utf-8").splitlines()]
    assert done.returncode == 0
    assert {(row["filter"], row["reason"], *row["facts"]) for row in rejected} == {
        ("words", "says 海鸥", "pet"),
        ("words", "says gull", "pet"),
    }
    kept = [json.loads(line) for line in (run / "kept.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["question"] for row in kept if "海鸥" in row["answer"] or "gull" in row["answer"]] == []

    said = camelbell("chat", "lumen", "--no-adapter", "--no-guard")
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout == (
        "灯塔有多少级台阶？ -> 九十九级，我每天数一遍。\n"
        "What is your pet called? -> Pebble, my gull, keeps me company.\n"
    )


def test_only_the_chosen_entry_points_of_a_package_are_loaded(lighthouse: Path, camelbell: Any) -> None:
    def offered(wanted: str) -> tuple[bool, bool]:
        parts = json.loads(camelbell("plugins", "--json", env={"CAMELBELL_PLUGINS": wanted}).stdout)["parts"]
        return "words" in parts["filters"], "postcards" in parts["chat_frontends"]

    assert offered("lighthouse_words") == (True, False)
    assert offered("lighthouse_post,lighthouse_words") == (True, True)


# --- our own wheel --------------------------------------------------------------------------------


def test_every_python_folder_of_ours_is_a_package_of_the_wheel() -> None:
    assert set(SETUP["package-dir"]) == {"camelbell_core", "camelbell_plugins", "camelbell_characters"}
    found = set()
    for package, folder in SETUP["package-dir"].items():
        pattern = "__init__.py" if package == "camelbell_characters" else "**/__init__.py"
        for file in (ROOT / folder).glob(pattern):
            found.add(".".join([package, *file.parent.relative_to(ROOT / folder).parts]))
    assert set(SETUP["packages"]) == found


def test_every_file_of_a_bundle_ships_in_the_wheel() -> None:
    globs = SETUP["package-data"]["camelbell_characters"]
    names = [file.relative_to(ROOT / "characters") for file in (ROOT / "characters").rglob("*") if file.is_file()]
    files = [PurePosixPath(name) for name in names if "__pycache__" not in name.parts and len(name.parts) > 1]
    lacking = [
        str(file)
        for file in files
        if not any(len(file.parts) == len(PurePosixPath(glob).parts) and file.match(glob) for glob in globs)
    ]
    assert len(files) > 10
    assert lacking == []


@pytest.mark.parametrize("package", ["camelbell_core", "camelbell_plugins"])
def test_the_types_of_a_package_ship_with_it(package: str) -> None:
    assert "py.typed" in SETUP["package-data"][package]
    assert (ROOT / SETUP["package-dir"][package] / "py.typed").is_file()
