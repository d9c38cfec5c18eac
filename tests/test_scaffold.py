"""New bundles are complete at once, and nothing is overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from camelbell_core.character import BundleRef
from camelbell_core.errors import CamelBellError
from camelbell_core.pipeline import open_run
from camelbell_core.scaffold import new_bundle


def files(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def test_a_new_bundle_has_no_mistakes_and_both_languages(tmp_path: Path) -> None:
    root = new_bundle("my-lamp_2", "", tmp_path / "新 new")
    assert root == tmp_path / "新 new" / "my-lamp_2"
    assert files(root) == ["README.md", "canon/canon.yaml", "character.yaml", "seeds/seeds.yaml"]
    character = open_run(BundleRef("my-lamp_2", root, "test"), tmp_path / "run").character
    assert (character.languages, character.title("zh"), character.title("en")) == (["zh", "en"], "小灯", "Lumen")
    assert [seed.name for seed in character.own_seeds] == ["like_thing", "stranger"]
    assert list(character.canon.facts)[:2] == ["pet", "steps"]
    first = (root / "character.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first == "# my-lamp_2.     camelbell check my-lamp_2     camelbell run my-lamp_2 --preset quick"
    assert "{" not in (root / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["", "Lamp", "小灯", "a b", "../x", "a/b", "_x", "-x", "a.b", "x\n"])
def test_a_name_that_cannot_be_a_folder_and_a_module_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CamelBellError) as caught:
        new_bundle(name, "", tmp_path / "bundles")
    assert caught.value.message == f"{name!r} cannot be a character's folder name"
    assert not (tmp_path / "bundles").exists()


@pytest.mark.parametrize("source", ["", "lumen"])
def test_what_is_there_is_not_overwritten(tmp_path: Path, small_bundle: BundleRef, source: str) -> None:
    (tmp_path / "lamp").mkdir()
    (tmp_path / "lamp" / "character.yaml").write_text("mine", encoding="utf-8")
    with pytest.raises(CamelBellError) as caught:
        new_bundle("lamp", source, tmp_path, [small_bundle.root.parent])
    assert caught.value.message == f"{str(tmp_path / 'lamp')!r} is already there"
    assert (tmp_path / "lamp" / "character.yaml").read_text(encoding="utf-8") == "mine"
    assert files(tmp_path / "lamp") == ["character.yaml"]


def test_a_copy_has_everything_but_what_was_trained(tmp_path: Path, small_bundle: BundleRef) -> None:
    for extra in ("adapters/embedded/adapter_config.json", "__pycache__/plugin.pyc", "quiz/q.jsonl", "plugin.py"):
        (small_bundle.root / extra).parent.mkdir(parents=True, exist_ok=True)
        (small_bundle.root / extra).write_text("", encoding="utf-8")
    root = new_bundle("copy", "lumen", tmp_path / "mine", [small_bundle.root.parent])
    assert files(root) == [
        "README.md",
        "canon/canon.yaml",
        "character.yaml",
        "plugin.py",
        "quiz/q.jsonl",
        "seeds/seeds.yaml",
    ]
    assert (root / "canon/canon.yaml").read_bytes() == (small_bundle.root / "canon/canon.yaml").read_bytes()


def test_a_copy_of_nobody_is_refused_with_the_nearest_name(tmp_path: Path, small_bundle: BundleRef) -> None:
    with pytest.raises(CamelBellError) as caught:
        new_bundle("copy", "lumem", tmp_path / "mine", [small_bundle.root.parent])
    assert caught.value.message == "there is no character 'lumem'; did you mean \"lumen\"?"
    assert not (tmp_path / "mine").exists()


def test_a_file_in_place_of_the_folder_is_told(tmp_path: Path, small_bundle: BundleRef) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for source in ("", "lumen"):
        with pytest.raises(CamelBellError) as caught:
            new_bundle("lamp", source, tmp_path / "file", [small_bundle.root.parent])
        assert caught.value.message.startswith("cannot ")
