"""base_llamacpp: llama.cpp says what transformers says, with adapters, from ids, on one base in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_base import EN, PROMPTS, ZH
from tiny_gguf import F32, original, randomise, write_gguf

from camelbell_core.adapters import peft_warnings, write_fingerprint
from camelbell_core.model import TorchModel
from camelbell_core.prompts import Prompt
from camelbell_core.roles import GgufBase, TrainableBase
from camelbell_core.tokens import FileTokenizer
from camelbell_plugins.base_gguf.convert import write_folder, write_tokenizer
from camelbell_plugins.base_gguf.header import read_header
from camelbell_plugins.base_llamacpp import LlamaCpp
from camelbell_plugins.base_llamacpp.model import LlamaModel


@dataclass
class Twins:
    """One tiny base twice: for transformers, and as a GGUF file."""

    torch: TrainableBase
    file: GgufBase


def make_twins(folder: Path, kind: str, quantisation: Any = F32, **changes: Any) -> Twins:
    model, words = original(kind, **changes)
    sources = randomise(model, quantisation)
    file = write_gguf(folder / "model.gguf", kind, model, sources, quantisation, words)
    header = read_header(file)
    (folder / "hub").mkdir()
    write_folder(header, file, folder / "hub")
    write_tokenizer(header.metadata, folder)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder / "hub"))
    return Twins(
        TrainableBase(name="tiny", model=model, tokenizer=tokenizer, fingerprint=f"{kind}-tiny"),
        GgufBase(
            name="tiny",
            file=file,
            tokenizer=lambda: FileTokenizer(folder),
            metadata=lambda: header.metadata,
            fingerprint=f"{kind}-tiny",
        ),
    )


@pytest.fixture(params=["llama", "gemma3"])
def twins(request: pytest.FixtureRequest, tmp_path: Path) -> Twins:
    """A tiny base of each kind."""
    return make_twins(tmp_path, request.param)


def make_adapter(base: TrainableBase, folder: Path, seed: int = 1, **options: Any) -> Path:
    """Save a random adapter of every projection, with its fingerprint; the base stays as it is."""
    import copy

    torch.manual_seed(seed)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = LoraConfig(**{"r": 4, "lora_alpha": 12, "target_modules": targets, "task_type": "CAUSAL_LM", **options})
    with peft_warnings():
        tuned = get_peft_model(copy.deepcopy(base.model), config)
    for name, parameter in tuned.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn_like(parameter) * 0.3
    tuned.save_pretrained(str(folder))
    layout = TorchModel(base).layout
    write_fingerprint(folder, base, layout, tuned.eval(), {})
    return folder


def torch_first(model: Any, prompt: Prompt) -> torch.Tensor:
    with torch.inference_mode():
        ids = torch.tensor([model.layout.prefix(prompt)])
        return model.model(input_ids=ids).logits[0, -1].float().log_softmax(-1)


def open_llama(twins: Twins, *adapters: Path | None, **options: Any) -> list[LlamaModel]:
    return LlamaCpp(**options).load_several(twins.file, adapters or [None])  # type: ignore[return-value]


def assert_alike(model: LlamaModel, reference: Any, prompt: Prompt) -> None:
    """Compare the logarithms of the probabilities of the likeliest first tokens; llama.cpp keeps states in float16."""
    expected = torch_first(reference, prompt)
    found = dict(model.first_tokens(prompt))
    assert len(found) == 20
    assert max(found, key=lambda token: found[token]) == int(expected.argmax())
    for token, value in found.items():
        assert value == pytest.approx(float(expected[token]), abs=0.1)


# --- agreement with transformers ------------------------------------------------------------------


@pytest.mark.parametrize("language", PROMPTS)
def test_the_bare_base_gives_the_same_probabilities(twins: Twins, language: str) -> None:
    (model,) = open_llama(twins)
    assert model.layout.prefix(PROMPTS[language]) == TorchModel(twins.torch).layout.prefix(PROMPTS[language])
    assert_alike(model, TorchModel(twins.torch), PROMPTS[language])


@pytest.mark.parametrize("language", PROMPTS)
def test_an_adapter_changes_them_as_peft_does(twins: Twins, language: str, tmp_path: Path) -> None:
    adapter = make_adapter(twins.torch, tmp_path / "adapter")
    (model,) = open_llama(twins, adapter)
    bare = torch_first(TorchModel(make_twins_again(twins)), PROMPTS[language])
    tuned = TorchModel(twins.torch, adapter)
    assert (torch_first(tuned, PROMPTS[language]) - bare).abs().max() > 1  # far more than the tolerance
    assert_alike(model, tuned, PROMPTS[language])
    assert model.adapter == str(adapter)


@pytest.mark.parametrize(
    "options",
    [
        {"use_rslora": True},
        {"alpha_pattern": {"q_proj": 32, "layers.1.mlp.up_proj": 3}, "rank_pattern": {"k_proj": 2}},
        {"target_modules": ["q_proj", "k_proj"]},
    ],
    ids=["rslora", "patterns", "two"],
)
def test_each_weight_keeps_its_own_scale(twins: Twins, options: dict[str, Any], tmp_path: Path) -> None:
    adapter = make_adapter(twins.torch, tmp_path / "adapter", **options)
    (model,) = open_llama(twins, adapter)
    assert_alike(model, TorchModel(twins.torch, adapter), ZH)


@pytest.mark.parametrize("language", PROMPTS)
def test_a_greedy_reply_is_the_same_text(twins: Twins, language: str, tmp_path: Path) -> None:
    adapter = make_adapter(twins.torch, tmp_path / "adapter")
    (model,) = open_llama(twins, adapter)
    reference = "".join(TorchModel(twins.torch, adapter).stream(PROMPTS[language], 8))
    said = "".join(model.stream(PROMPTS[language], 8))
    # A random model says half characters, which llama.cpp may leave out.
    told, expected = (text.replace("\ufffd", "").split("\n")[0].strip() for text in (said, reference))
    assert told == expected


# --- adapters -------------------------------------------------------------------------------------


def test_one_base_serves_several_adapters_and_none(twins: Twins, tmp_path: Path) -> None:
    adapters = [make_adapter(twins.torch, tmp_path / f"adapter{seed}", seed) for seed in (1, 2)]
    first, bare, second = open_llama(twins, adapters[0], None, adapters[1])
    assert first._server is bare._server is second._server
    references = [TorchModel(make_twins_again(twins), a) for a in adapters]
    for _ in range(2):  # in turns, so that no state of another adapter's prompt is taken up
        assert_alike(first, references[0], EN)
        assert_alike(second, references[1], EN)
        assert_alike(bare, TorchModel(twins.torch), EN)


def make_twins_again(twins: Twins) -> TrainableBase:
    """Return the base for transformers with a model of its own: PEFT writes into the one that it is given."""
    import copy
    from dataclasses import replace

    return replace(twins.torch, model=copy.deepcopy(twins.torch.model))
