"""adapters.py: an adapter goes on the base, tokenizer and layout that it was trained on, or is refused in words."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_base import EN, ZH, open_base, save_base, tiny_model, tiny_tokenizer

from camelbell_core.adapters import attach, check_fingerprint, peft_warnings, probe, tokenizer_digest, write_fingerprint
from camelbell_core.errors import ModelMismatch
from camelbell_core.model import TorchModel
from camelbell_core.prompts import layout_for
from camelbell_core.roles import TrainableBase

Change = Callable[[Path], None]


@pytest.fixture
def base(tiny_bases: dict[str, Path]) -> TrainableBase:
    """A Llama model, under a short name."""
    return replace(open_base(tiny_bases["llama-plain"]), name="tiny")


@pytest.fixture
def adapter(base: TrainableBase, tiny_bases: dict[str, Path], tmp_path: Path) -> Path:
    """An adapter of random numbers with the fingerprint of that base."""
    opened = open_base(tiny_bases["llama-plain"])
    config = LoraConfig(r=4, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    with peft_warnings():
        model = get_peft_model(opened.model, config)
    folder = tmp_path / "adapter"
    model.save_pretrained(str(folder), save_embedding_layers=False)
    write_fingerprint(folder, base, layout_for(base.tokenizer), model, {"character": "哈利"})
    return folder


def refusal(base: TrainableBase, folder: Path) -> str:
    """Return what the refusal of an adapter says, its folder left out; there is always a hint."""
    with pytest.raises(ModelMismatch) as caught:
        attach(base, layout_for(base.tokenizer), folder)
    assert caught.value.hint
    return caught.value.message.replace(str(folder), "FOLDER")


# --- what fits ------------------------------------------------------------------------------------


def test_an_adapter_of_this_base_changes_what_the_model_says(base: TrainableBase, adapter: Path) -> None:
    layout = layout_for(base.tokenizer)
    plain, _ = probe(base.model, layout)
    tuned, seen = probe(attach(base, layout, adapter), layout)
    assert not torch.equal(plain, tuned)
    assert json.loads((adapter / "camelbell.json").read_text(encoding="utf-8"))["probe"] == seen


def test_a_model_with_an_adapter_names_it_and_talks(
    base: TrainableBase, adapter: Path, tiny_bases: dict[str, Path]
) -> None:
    plain, tuned = TorchModel(open_base(tiny_bases["llama-plain"])), TorchModel(base, adapter)
    assert (plain.adapter, tuned.adapter) == ("", str(adapter))
    for prompt in (ZH, EN):
        assert list(tuned.stream(prompt, 20)) != list(plain.stream(prompt, 20))


@pytest.mark.parametrize("order", [(0, 1, None), (None, 1, 0), (1, None), (None, None), (0,)])
def test_several_adapters_share_one_base_and_each_speaks_as_if_alone(
    tiny_bases: dict[str, Path], adapter: Path, tmp_path: Path, order: tuple[int | None, ...]
) -> None:
    def opened() -> TrainableBase:
        return replace(open_base(tiny_bases["llama-plain"]), name="tiny")

    with peft_warnings():
        torch.manual_seed(7)
        config = LoraConfig(r=2, target_modules=["v_proj", "o_proj"], init_lora_weights=False)
        get_peft_model(opened().model, config).save_pretrained(str(tmp_path / "other"), save_embedding_layers=False)
    folders = [None if number is None else (adapter, tmp_path / "other")[number] for number in order]
    alone = [TorchModel(opened(), folder) for folder in folders]
    shared = TorchModel.several(opened(), folders)
    assert [model.adapter for model in shared] == [str(folder or "") for folder in folders]
    assert len({id(model.model) for model in shared}) == 1
    for _ in range(2):  # each comes after each other
        for prompt in (ZH, EN):
            assert [[*m.stream(prompt, 12)] for m in shared] == [[*m.stream(prompt, 12)] for m in alone]
    said = {"".join(model.stream(ZH, 12)) for model in shared}
    assert len(said) == len(set(folders))


def test_an_adapter_of_another_tool_is_taken_as_it_is(base: TrainableBase, adapter: Path) -> None:
    (adapter / "camelbell.json").unlink()
    layout = layout_for(base.tokenizer)
    plain, _ = probe(base.model, layout)
    assert not torch.equal(probe(attach(base, layout, adapter), layout)[0], plain)


def test_opening_an_adapter_warns_of_nothing(base: TrainableBase, adapter: Path) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        attach(base, layout_for(base.tokenizer), adapter)
    assert [str(warning.message) for warning in seen if "gradient_checkpointing" in str(warning.message)] == []


# --- what does not fit ----------------------------------------------------------------------------


def test_an_adapter_of_another_base_is_refused(adapter: Path, tiny_bases: dict[str, Path]) -> None:
    gemma = replace(open_base(tiny_bases["gemma3-plain"]), name="gemma")
    assert refusal(gemma, adapter) == "the adapter 'FOLDER' was trained on another base model ('tiny', not 'gemma')"


def test_an_adapter_of_another_tokenizer_is_refused(base: TrainableBase, adapter: Path) -> None:
    other = tiny_tokenizer()
    other.add_tokens(["哈利"])
    assert refusal(replace(base, tokenizer=other), adapter) == "the adapter 'FOLDER' was trained on another tokenizer"


def test_an_adapter_of_another_layout_is_refused(adapter: Path, tiny_bases: dict[str, Path]) -> None:
    chat = replace(open_base(tiny_bases["llama-chat"]), name="tiny")
    assert refusal(chat, adapter) == "the adapter 'FOLDER' was trained on another prompt layout ('plain')"


def test_all_that_differs_is_named_at_once(adapter: Path, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer("{{ bos_token }}{{ messages }}", 400)
    folder = save_base(tmp_path / "other", tiny_model("llama", len(tokenizer)), tokenizer)
    assert refusal(replace(open_base(folder), name="other"), adapter) == (
        "the adapter 'FOLDER' was trained on another base model ('tiny', not 'other'), another tokenizer, "
        "another prompt layout ('plain')"
    )


def test_check_fingerprint_alone_says_the_same_without_weights(base: TrainableBase, adapter: Path) -> None:
    layout = layout_for(base.tokenizer)
    (adapter / "adapter_model.safetensors").unlink()
    check_fingerprint(base, layout, adapter)
    with pytest.raises(ModelMismatch, match=r"was trained on another base model \('tiny', not 'tiny'\)$"):
        check_fingerprint(replace(base, fingerprint="0"), layout, adapter)


# --- what is damaged ------------------------------------------------------------------------------


def edit_weights(change: Callable[[str, torch.Tensor], torch.Tensor | None]) -> Change:
    """Return what changes the tensors of an adapter, or leaves them out."""

    def edit(folder: Path) -> None:
        file = folder / "adapter_model.safetensors"
        tensors = {name: change(name, tensor) for name, tensor in load_file(file).items()}
        save_file({name: tensor.contiguous() for name, tensor in tensors.items() if tensor is not None}, file)

    return edit


def edit_json(name: str, **changes: Any) -> Change:
    """Return what changes keys of a JSON file."""

    def edit(folder: Path) -> None:
        data = json.loads((folder / name).read_text(encoding="utf-8"))
        (folder / name).write_text(json.dumps(data | changes), encoding="utf-8")

    return edit


def write(name: str, data: bytes) -> Change:
    """Return what replaces a file."""

    def edit(folder: Path) -> None:
        (folder / name).write_bytes(data)

    return edit


def unlink(*names: str) -> Change:
    """Return what deletes files."""

    def edit(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return edit


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (unlink("adapter_config.json"), "'FOLDER' holds no adapter"),
        (unlink("adapter_model.safetensors"), "'FOLDER' holds no adapter"),
        (
            edit_weights(lambda name, tensor: tensor * (0 if "lora_B" in name else 1)),
            "the adapter 'FOLDER' changes no logit of 'tiny'",
        ),
        (
            edit_weights(lambda name, tensor: torch.full_like(tensor, torch.nan)),
            "with the adapter 'FOLDER' 'tiny' gives logits that are not numbers",
        ),
    ],
)
def test_an_adapter_that_is_missing_or_does_nothing_is_refused(
    damage: Change, message: str, base: TrainableBase, adapter: Path
) -> None:
    damage(adapter)
    assert refusal(base, adapter) == message


@pytest.mark.parametrize("path", ["no/such/folder", "文件"])
def test_a_folder_that_is_none_holds_no_adapter(path: str, base: TrainableBase, tmp_path: Path) -> None:
    (tmp_path / "文件").write_text("a file", encoding="utf-8")
    assert refusal(base, tmp_path / path) == "'FOLDER' holds no adapter"


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (write("adapter_model.safetensors", b""), "Error while deserializing header"),
        (write("adapter_model.safetensors", b"\x10\0\0\0\0\0\0\0{}"), "Error while deserializing header"),
        (write("adapter_config.json", b"{"), "Expecting property name"),
        (write("adapter_config.json", b"[]"), "list indices must be"),
        (edit_json("adapter_config.json", target_modules=["nope"]), "Target modules {'nope'} not found"),
        (edit_json("adapter_config.json", r=8), "Error(s) in loading state_dict for PeftModel: size mismatch"),
        (edit_weights(lambda name, tensor: tensor if "layers.0" in name else None), "Found missing adapter keys"),
        (edit_weights(lambda name, tensor: None), "Found missing adapter keys"),
    ],
)
def test_a_damaged_adapter_is_an_error_that_says_what_is_wrong(
    damage: Change, why: str, base: TrainableBase, adapter: Path
) -> None:
    damage(adapter)
    said = refusal(base, adapter)
    assert said.startswith(f"the adapter 'FOLDER' cannot be put on 'tiny': {why}")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "Expecting value: line 1 column 1 (char 0)"),
        (b"{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        (b"[]", "it is no object"),
        (b'{"base": "\xff"}', "'utf-8' codec can't decode byte 0xff in position 10: invalid start byte"),
    ],
)
def test_a_broken_fingerprint_is_an_error(data: bytes, why: str, base: TrainableBase, adapter: Path) -> None:
    (adapter / "camelbell.json").write_bytes(data)
    assert refusal(base, adapter) == f"{Path('FOLDER') / 'camelbell.json'} is not a fingerprint: {why}"


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("base_sha256", "another base model ('tiny', not 'tiny')"),
        ("tokenizer_sha256", "another tokenizer"),
        ("layout_sha256", "another prompt layout ('plain')"),
    ],
)
@pytest.mark.parametrize("value", ["", "0" * 64, None, 1])
def test_each_hash_of_a_fingerprint_is_checked(
    key: str, words: str, value: Any, base: TrainableBase, adapter: Path
) -> None:
    edit_json("camelbell.json", **{key: value})(adapter)
    assert refusal(base, adapter) == f"the adapter 'FOLDER' was trained on {words}"


# --- digests --------------------------------------------------------------------------------------


def test_the_digest_of_a_tokenizer_changes_with_its_ids_specials_and_size_only() -> None:
    def changed(change: Callable[[Any], Any]) -> str:
        tokenizer = tiny_tokenizer()
        change(tokenizer)
        return tokenizer_digest(tokenizer)

    digests = [
        changed(lambda tokenizer: None),
        changed(lambda tokenizer: setattr(tokenizer, "eos_token", "<pad>")),
        changed(lambda tokenizer: setattr(tokenizer, "bos_token", "<eos>")),
        changed(lambda tokenizer: tokenizer.add_tokens(["unheard of"])),
        changed(lambda tokenizer: tokenizer.add_tokens(["你好"])),
        tokenizer_digest(tiny_tokenizer(vocabulary=400)),
    ]
    assert len(set(digests)) == len(digests)
    assert tokenizer_digest(tiny_tokenizer("{{ bos_token }}")) == digests[0], "a template is the layout's affair"


def test_the_probe_writes_the_likeliest_first_tokens_down(base: TrainableBase) -> None:
    logits, seen = probe(base.model, layout_for(base.tokenizer))
    values, tokens = logits.topk(8)
    assert seen["first_tokens"] == [
        [token, round(value, 2)] for token, value in zip(tokens.tolist(), values.tolist(), strict=True)
    ]
    assert logits.shape == (len(base.tokenizer),)
    assert probe(base.model, layout_for(base.tokenizer))[1] == seen
