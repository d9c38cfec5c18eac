"""The ablations: a quiz put to a tiny model with and without adapter, facts and guard, in one table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from peft import LoraConfig, get_peft_model
from tiny_base import open_base

from camelbell_core.adapters import peft_warnings
from camelbell_core.errors import CamelBellError
from camelbell_core.pipeline import Run
from camelbell_plugins.command_ablations import register_commands, variants

ITEMS = [
    {"id": "1", "lang": "zh", "q": "灯塔有多少级台阶？", "must": [["九十九", "99"]]},
    {"id": "2", "lang": "en", "q": "What is your pet called?", "must": [["Pebble"]]},
    {"id": "3", "lang": "zh", "kind": "trap", "q": "莫格里斯是谁？", "must": [["没听说过"]]},
    {"id": "4", "lang": "en", "kind": "trap", "q": "Who is Mogris?", "must": [["never heard"]]},
]
BARE = ["base", "base + persona"]
FACTS = ["facts only (composed)", "base + facts"]
ADAPTER = ["adapter", "adapter + facts", "adapter + facts + guard"]


@pytest.fixture
def ablations(open_lumen: Callable[..., Run], tmp_path: Path, tiny_bases: dict[str, Path]) -> Callable[..., Any]:
    """Run `camelbell ablations lumen` on a tiny random base and the bundle's quiz."""
    quiz = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in ITEMS)
    open_lumen({"quiz/lumen.jsonl": quiz}, guard=[{"length": {"most": 1}}])  # nothing that the model says will pass
    group = click.Group()
    register_commands(group)
    places = ["--characters", str(tmp_path / "bundles"), "--workspace", str(tmp_path / "run")]
    chosen = ["--base", str(tiny_bases["llama-chat"])]
    return lambda *options: CliRunner().invoke(group, ["ablations", "lumen", *map(str, options), *chosen, *places])


@pytest.fixture
def adapter(tiny_bases: dict[str, Path]) -> Callable[[Path], Path]:
    """Write an adapter of random numbers for that base."""

    def write(folder: Path) -> Path:
        config = LoraConfig(r=4, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
        with peft_warnings():
            model = get_peft_model(open_base(tiny_bases["llama-chat"]).model, config)
        model.save_pretrained(str(folder), save_embedding_layers=False)
        return folder

    return write


def table(output: str) -> dict[str, list[str]]:
    """Return the cells of each row by its label, the head left out."""
    return {line[:28].strip(): line[28:].split() for line in output.splitlines()[1:]}


def test_each_part_is_left_out_once_the_barest_first(
    ablations: Callable[..., Any], adapter: Callable[[Path], Path], tmp_path: Path
) -> None:
    adapter(tmp_path / "run" / "adapters" / "llama-chat")
    done = ablations("--with", f"mine={adapter(tmp_path / 'mine')}", "--report", tmp_path / "out" / "report.json")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0].split() == "truthful 95 % interval answered refused n=4".split()
    rows = table(done.stdout)
    assert list(rows) == [*BARE, "mine", *FACTS, *ADAPTER]
    # What a random model says is true of nothing; facts alone know all of it, and under a guard they take its place.
    right, wrong = "1.000 0.510 to 1.000 1.000 1.000".split(), "0.000 0.000 to 0.490 1.000 0.000".split()
    guarded = ("facts only (composed)", "adapter + facts + guard")
    assert rows == {label: right if label in guarded else wrong for label in rows}
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert [row["variant"] for row in report["variants"]] == list(rows)
    for row in report["variants"]:
        told = [row["truthful"], row["low"], row["high"], row["answered"], row["refused"]]
        assert [f"{number:.3f}" for number in told] == [cell for cell in rows[row["variant"]] if cell != "to"]
        assert row["n"] == 4


def test_without_an_adapter_the_base_alone_is_compared(ablations: Callable[..., Any]) -> None:
    done = ablations("--limit", 2)
    assert list(table(done.stdout)) == [*BARE, *FACTS]
    assert done.stdout.splitlines()[0].endswith("n=2")


def test_a_quiz_can_be_named(ablations: Callable[..., Any], tmp_path: Path) -> None:
    quiz = tmp_path / "quiz.jsonl"
    quiz.write_text(json.dumps({**ITEMS[1], "must": [["Bean"]]}), encoding="utf-8")
    done = ablations("--quiz", quiz)
    assert table(done.stdout)["facts only (composed)"] == ["0.000", "0.000", "to", "0.793", "1.000", "0.000"]


def test_a_quiz_without_items_is_told(ablations: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "quiz.jsonl").write_text("", encoding="utf-8")
    done = ablations("--quiz", tmp_path / "quiz.jsonl")
    assert isinstance(done.exception, CamelBellError)
    assert done.exception.message == "lumen has no quiz of its own"
    assert done.stdout == ""


def test_a_folder_without_an_adapter_is_told(ablations: Callable[..., Any], tmp_path: Path) -> None:
    done = ablations("--with", f"mine={tmp_path / 'none'}", "--limit", 1)
    assert isinstance(done.exception, CamelBellError)
    assert done.exception.message == f"{str(tmp_path / 'none')!r} holds no adapter"
    assert list(table(done.stdout)) == BARE


@pytest.mark.parametrize("value", ["mine", "mine=", ""])
def test_another_adapter_is_named_with_label_and_folder(ablations: Callable[..., Any], value: str) -> None:
    done = ablations("--with", value)
    assert done.exit_code == 2 and "write LABEL=FOLDER" in done.output


def test_a_way_has_a_model_a_persona_facts_and_a_guard_or_not() -> None:
    own, other = Path("own"), Path("a=b")
    ways = {
        way.label: (way.adapter, way.model, way.persona, way.memory, way.guard)
        for way in variants(own, {"mine": other})
    }
    assert ways == {
        "base": (None, True, False, False, False),
        "base + persona": (None, True, True, False, False),
        "mine": (other, True, True, False, False),
        "facts only (composed)": (None, False, True, True, True),
        "base + facts": (None, True, True, True, False),
        "adapter": (own, True, True, False, False),
        "adapter + facts": (own, True, True, True, False),
        "adapter + facts + guard": (own, True, True, True, True),
    }
