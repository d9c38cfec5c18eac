"""What a plugin can extend: names and arguments that are kept for life, each with a shipped user and documentation."""

from __future__ import annotations

import inspect
from pathlib import Path

import pluggy
import pytest

from camelbell_core import hookspecs
from camelbell_core.character import BundleRef
from camelbell_core.registry import build_registry

ROOT = Path(__file__).parent.parent
ARGUMENTS = {  # plugins outside the repository rely on each of these
    "register_question_generators": [],
    "register_answer_teachers": [],
    "register_filters": [],
    "register_trainers": [],
    "register_chat_frontends": [],
    "register_base_models": [],
    "register_engines": [],
    "register_memories": [],
    "register_commands": ["cli"],
    "load_seeds": ["character"],
    "build_persona": ["character", "language"],
}


def test_the_hooks_and_their_arguments_are_for_life() -> None:
    specs = {name: spec for name, spec in vars(hookspecs).items() if hasattr(spec, "camelbell_spec")}
    assert {name: list(inspect.signature(spec).parameters) for name, spec in specs.items()} == ARGUMENTS


@pytest.mark.parametrize("hook", ARGUMENTS)
def test_each_hook_says_what_it_is_for_and_does_nothing_itself(hook: str) -> None:
    function = getattr(hookspecs, hook)
    assert (function.__doc__ or "").strip().endswith(".")
    assert function(*ARGUMENTS[hook]) is None


def test_only_the_persona_is_answered_by_one_plugin() -> None:
    manager = pluggy.PluginManager("camelbell")
    manager.add_hookspecs(hookspecs)
    first = {name for name in ARGUMENTS if getattr(manager.hook, name).spec.opts["firstresult"]}
    assert first == {"build_persona"}


@pytest.mark.parametrize("hook", ARGUMENTS)
def test_each_hook_has_a_shipped_implementation(hook: str) -> None:
    roots = [file.parent for file in sorted(ROOT.glob("characters/*/plugin.py"))]
    bundles = [None, *(BundleRef(root.name, root, "test") for root in roots)]
    shipped = {
        plugin.name
        for bundle in bundles
        for plugin in build_registry(bundle).plugins
        if plugin.source in ("built-in", *(str(root / "plugin.py") for root in roots)) and hook in plugin.hooks
    }
    assert shipped


@pytest.mark.parametrize("hook", ARGUMENTS)
def test_each_hook_is_documented_with_its_arguments(hook: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"`{hook}({', '.join(ARGUMENTS[hook])})`" in readme
