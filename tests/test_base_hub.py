"""base_hub.py: models by folder or hub id."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tiny_base import EN, ZH

from camelbell_core.folders import folder_fingerprint
from camelbell_core.model import TorchModel
from camelbell_plugins.base_hub import HubBase

MIB = 1 << 20


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "accepted"),
    [
        ("org/name", True),
        ("Qwen/Qwen2.5-0.5B_x", True),
        ("org/name/", False),
        ("org/name@main", False),
        ("org/name\n", False),
        ("org", False),
        ("org//name", False),
        ("哈利/波特", False),
        ("https://huggingface.co/org/name", False),
        ("../name", False),
        ("/no/such/folder", False),
        ("a\0b/c", False),
        ("", False),
    ],
)
def test_the_form_of_a_hub_id_is_accepted(name: str, accepted: bool) -> None:
    assert HubBase().accepts(name) is accepted


def test_a_folder_is_accepted_when_it_holds_a_model(tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    assert HubBase().accepts(str(tiny_bases["llama-plain"]))
    assert not HubBase().accepts(str(tmp_path))
    assert not HubBase().accepts(str(tiny_bases["llama-plain"] / "config.json"))


@pytest.mark.parametrize("name", ["gemma3-plain", "llama-chat"])
def test_a_folder_in_the_home_folder_is_opened_for_talk_and_training(
    name: str, tiny_bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_bases[name], tmp_path / "模型 a")
    monkeypatch.setenv("HOME", str(tmp_path))
    base = HubBase().load_trainable("~/模型 a")
    assert (base.name, base.license, base.fingerprint) == ("~/模型 a", "", folder_fingerprint(tiny_bases[name]))
    talker = HubBase().load("~/模型 a")
    assert isinstance(talker, TorchModel)
    assert (talker.name, talker.adapter) == ("~/模型 a", "")
    for prompt in (ZH, EN):
        assert "".join(talker.stream(prompt, 8)) == "".join(TorchModel(base).stream(prompt, 8))
