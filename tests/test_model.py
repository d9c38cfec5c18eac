"""model.py: opening a base model, and the stream of its reply."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from tiny_base import EN, PROMPTS, ZH, open_base, reciter, tiny_tokenizer

from camelbell_core import hookimpl, model
from camelbell_core.errors import CamelBellError
from camelbell_core.model import TorchModel, best_dtype, loader_for, open_pretrained
from camelbell_core.prompts import Prompt, layout_for
from camelbell_core.registry import build_registry
from camelbell_core.roles import BaseModel, Engine, GgufBase, TrainableBase
from camelbell_plugins.base_gguf import PackagedBase
from camelbell_plugins.base_hub import HubBase

# Most of their characters are two to four tokens of the tiny tokenizer, and no token stands there twice.
RECITED = {"zh": "龘你é，𠮷 ok", "en": "She ü,φ."}


def speaker(text: str, prompt: Prompt, ends: bool = True) -> TorchModel:
    """Return a model that answers a prompt with a text, and says it again and again unless it ends."""
    tokenizer = tiny_tokenizer()
    layout = layout_for(tokenizer)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id] * ends
    said = reciter(tokenizer, layout.prefix(prompt)[-1], ids)
    return TorchModel(TrainableBase(name="reciter", model=said, tokenizer=tokenizer, fingerprint="reciter"))


# --- streaming ------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["zh", "en"])
def test_a_reply_comes_in_pieces_of_whole_characters(language: str) -> None:
    text = RECITED[language]
    talker = speaker(text, PROMPTS[language])
    assert len(talker.tokenizer(text, add_special_tokens=False)["input_ids"]) > len(text), "characters are split"
    pieces = list(talker.stream(PROMPTS[language], 64))
    assert "".join(pieces) == text
    assert len(pieces) > 1
    assert "\ufffd" not in "".join(pieces)
    assert all(pieces)


@pytest.mark.parametrize("language", ["zh", "en"])
def test_a_model_counts_tokens(language: str) -> None:
    text = RECITED[language]
    talker = speaker(text, PROMPTS[language])
    assert talker.count(text) == len(talker.tokenizer(text)["input_ids"]) > len(text)
    assert talker.count("") == 0


@pytest.mark.parametrize("language", ["zh", "en"])
def test_a_seed_repeats_a_reply_and_leaves_other_random_numbers_alone(
    tiny_bases: dict[str, Path], language: str
) -> None:
    model, prompt = TorchModel(open_base(tiny_bases["llama-plain"])), PROMPTS[language]

    def said(**sampling: Any) -> str:
        return "".join(model.with_sampling(**sampling).stream(prompt, 24, 1.5))

    torch.manual_seed(1)
    before = torch.rand(1)
    torch.manual_seed(1)
    first = said(seed=5)
    assert torch.rand(1) == before
    assert said(seed=5) == first
    assert len({said(seed=number) for number in range(4)}) > 1
    assert said(seed=-(2**63)) == said(seed=-(2**63))
    assert (model.seed, model.top_p) == (None, 0.9)


@pytest.mark.parametrize("language", ["zh", "en"])
def test_a_nucleus_of_nothing_is_greedy(tiny_bases: dict[str, Path], language: str) -> None:
    model, prompt = TorchModel(open_base(tiny_bases["llama-plain"])), PROMPTS[language]
    greedy = "".join(model.stream(prompt, 24))
    assert "".join(model.with_sampling(top_p=0.0).stream(prompt, 24, 1.5)) == greedy
    assert "".join(model.with_sampling(top_p=1.0, seed=3).stream(prompt, 24, 1.5)) != greedy


@pytest.mark.parametrize("language", ["zh", "en"])
def test_a_reply_cut_within_a_character_ends_with_the_character_before(language: str) -> None:
    text = RECITED[language]
    talker = speaker(text, PROMPTS[language])
    ids = talker.tokenizer(text, add_special_tokens=False)["input_ids"]
    for count in range(1, len(ids) + 1):
        whole = talker.tokenizer.decode(ids[:count]).rstrip("\ufffd")
        assert "".join(talker.stream(PROMPTS[language], count)) == whole
        assert text.startswith(whole)


def test_a_plain_answer_ends_at_its_line_break() -> None:
    assert "".join(speaker("你 ok\nmore", ZH).stream(ZH, 64)) == "你 ok\n"


def test_max_tokens_bounds_the_reply() -> None:
    talker = speaker(" ok", EN, ends=False)
    one = "".join(talker.stream(EN, len(talker.tokenizer(" ok")["input_ids"])))
    assert one == " ok"
    assert "".join(talker.stream(EN, 5 * len(talker.tokenizer(" ok")["input_ids"]))) == " ok" * 5


@pytest.mark.parametrize("asked", [0, 1, 4])
def test_stop_ends_the_reply_at_the_next_token(asked: int) -> None:
    calls: list[int] = []

    def stop() -> bool:
        calls.append(1)
        return len(calls) > asked

    talker = speaker(" abxyz", EN, ends=False)
    said = talker.tokenizer(" abxyz", add_special_tokens=False)["input_ids"]
    assert "".join(talker.stream(EN, 300, stop=stop)) == talker.tokenizer.decode(said[: asked + 1])
    assert len(calls) == asked + 1


def test_a_stream_that_is_left_stops_generating() -> None:
    talker = speaker(" ok", EN, ends=False)
    steps: list[int] = []
    talker.model.register_forward_pre_hook(lambda *args: steps.append(1))
    before = threading.active_count()
    stream = talker.stream(EN, 400)
    assert next(stream).strip() in {"", "ok"}
    stream.close()
    assert threading.active_count() == before
    assert len(steps) < 400


@pytest.mark.parametrize("after", [0, 3])
def test_an_exception_in_generation_reaches_the_caller(after: int) -> None:
    calls: list[int] = []

    def stop() -> bool:
        calls.append(1)
        if len(calls) > after:
            raise ZeroDivisionError("in generation")
        return False

    talker = speaker("你 ok", ZH, ends=False)
    with pytest.raises(ZeroDivisionError, match=r"^in generation$"):
        list(talker.stream(ZH, 100, stop=stop))
    assert "".join(talker.stream(ZH, 10)).startswith("你 ok"), "the model is usable after it"


def test_temperature_samples_and_zero_is_greedy(tiny_bases: dict[str, Path]) -> None:
    talker = TorchModel(open_base(tiny_bases["gemma3-plain"]))

    def said(seed: int, temperature: float) -> str:
        torch.manual_seed(seed)
        return "".join(talker.stream(ZH, 12, temperature))

    assert said(1, 0.0) == said(2, 0.0)
    assert said(1, 1.0) == said(1, 1.0)
    assert len({said(seed, 1.0) for seed in range(4)}) > 1


@pytest.mark.parametrize("prompt", [ZH, EN], ids=["zh", "en"])
def test_prompt_and_reply_together_fit_the_models_window(prompt: Prompt, tiny_bases: dict[str, Path]) -> None:
    talker = TorchModel(open_base(tiny_bases["llama-plain"]))
    assert talker.window == 512
    lengths: list[int] = []
    talker.model.get_input_embeddings().register_forward_pre_hook(lambda m, args: lengths.append(args[0].shape[1]))
    list(talker.stream(replace(prompt, question=prompt.question * 50), 400))
    assert 90 < lengths[0] <= 112


def test_more_tokens_than_the_window_holds_are_an_error_that_says_so(tiny_bases: dict[str, Path]) -> None:
    talker = TorchModel(open_base(tiny_bases["llama-plain"]))
    with pytest.raises(CamelBellError, match=r"takes \d+ tokens, and there is room for -488$"):
        list(talker.stream(ZH, 1000))


# --- opening --------------------------------------------------------------------------------------


def test_a_base_is_opened_frozen_with_its_name_and_fingerprint(tiny_bases: dict[str, Path]) -> None:
    base = open_pretrained("tiny", tiny_bases["llama-plain"], "abc", "mit")
    assert (base.name, base.fingerprint, base.license) == ("tiny", "abc", "mit")
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert base.model.dtype == best_dtype(model.best_device())
    assert base.tokenizer("你好 hello")["input_ids"] == tiny_tokenizer()("你好 hello")["input_ids"]


def edit_config(**changes: Any) -> Callable[[Path], None]:
    """Return what changes keys of config.json."""

    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")

    return edit


def cut(name: str, size: int) -> Callable[[Path], None]:
    """Return what cuts a file off."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be opened: Error no file named"),
        (cut("model.safetensors", 5000), "cannot be opened: Error while deserializing header"),
        (cut("model.safetensors", 0), "cannot be opened: Error while deserializing header"),
        (cut("config.json", 10), "cannot be opened: It looks like the config file at"),
        (lambda folder: (folder / "config.json").write_text("[]"), "cannot be opened: "),
        (edit_config(model_type="nonsense"), "cannot be opened: The checkpoint you are trying to load"),
        (edit_config(num_attention_heads=0), "cannot be opened: "),
        (edit_config(intermediate_size=96), "cannot be opened: "),
        (edit_config(num_hidden_layers=3), "lacks the weights model.layers.2.input_layernorm.weight and 8 more"),
        (cut("tokenizer.json", 10), "cannot be opened: "),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "cannot be opened: "),
        (shutil.rmtree, "cannot be opened: "),
    ],
)
def test_a_damaged_model_folder_is_an_error_that_names_it(
    damage: Callable[[Path], None], message: str, tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_bases["llama-plain"], tmp_path / "damaged")
    damage(folder)
    with pytest.raises(CamelBellError) as caught:
        open_pretrained("org/damaged", folder, "")
    assert caught.value.message.startswith(f"the base model 'org/damaged' {message}")
    assert "\n" not in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("capabilities", "old_answer", "dtype"),
    [
        ({"avx512_bf16": True}, False, torch.bfloat16),
        ({"amx_bf16": True}, False, torch.bfloat16),
        ({"bf16": True}, False, torch.bfloat16),
        ({"avx2": True, "avx512_bf16": False}, False, torch.float32),
        ({}, True, torch.bfloat16),
        ({}, False, torch.float32),
    ],
)
def test_the_type_is_bfloat16_where_the_processor_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], old_answer: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: old_answer, raising=False)
    assert best_dtype("cpu") == dtype


def test_the_name_chooses_the_loader(tiny_bases: dict[str, Path]) -> None:
    registry = build_registry()
    loaders = {name: type(loader_for(registry, f"transformers:{name}").loader) for name in ("embedded", "smollm2")}
    assert loaders == {"embedded": PackagedBase, "smollm2": PackagedBase}
    assert isinstance(loader_for(registry, "org/name"), HubBase)
    assert isinstance(loader_for(registry, str(tiny_bases["gemma3-chat"])), HubBase)


@dataclass(kw_only=True)
class Brass(Engine):
    """An engine that suits this machine as the class says, and keeps what it is given."""

    name: ClassVar[str] = "brass"
    here: ClassVar[bool] = True

    def suits(self) -> bool:
        return self.here

    def load_several(self, base: GgufBase, adapters: Sequence[Path | None]) -> list[Any]:
        return [(base, adapter) for adapter in adapters]


@dataclass(kw_only=True)
class Tin(BaseModel):
    """A base that comes as a GGUF file."""

    name: ClassVar[str] = "tin"

    def accepts(self, base: str) -> bool:
        return base == "tin"

    def slug(self, base: str) -> str:
        return f"slug-{base}"

    def gguf(self, base: str) -> GgufBase:
        return GgufBase(name=base, file=Path("x.gguf"), tokenizer=str, metadata=dict, fingerprint="")

    def load(self, base: str, adapter: Path | None = None) -> Any:
        return f"transformers {base}", adapter

    def load_trainable(self, base: str) -> Any:
        return f"trainable {base}"


@pytest.fixture
def metals(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A registry with one such base, and one such engine in the place of the shipped one."""

    class Plugin:
        @hookimpl
        def register_base_models(self) -> list[Any]:
            return [Tin]

        @hookimpl
        def register_engines(self) -> list[Any]:
            return [Brass]

    registry = build_registry()
    registry.manager.unregister(name="base_llamacpp")
    registry.manager.register(Plugin(), "metals")
    return registry


def test_an_engine_that_suits_the_machine_talks_where_nobody_names_one(
    metals: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = loader_for(metals, "tin")
    base, adapter = loader.load("tin", Path("a"))  # type: ignore[misc]
    assert (base.name, adapter) == ("tin", Path("a"))
    assert loader.slug("tin") == "slug-tin"  # adapters lie in one place for every engine
    assert loader.load_trainable("tin") == "trainable tin"
    monkeypatch.setattr(Brass, "here", False)
    assert isinstance(loader_for(metals, "tin"), Tin)


@pytest.mark.parametrize("here", [True, False])
def test_an_engine_that_is_named_talks(metals: Any, monkeypatch: pytest.MonkeyPatch, here: bool) -> None:
    monkeypatch.setattr(Brass, "here", here)
    by_brass, by_torch = loader_for(metals, "brass:tin"), loader_for(metals, "transformers:tin")
    base, _ = by_brass.load("brass:tin")  # type: ignore[misc]
    assert base.name == "tin"
    assert by_torch.load("transformers:tin") == ("transformers tin", None)
    for name, loader in (("brass:tin", by_brass), ("transformers:tin", by_torch)):
        assert loader.slug(name) == "slug-tin"
        assert loader.load_trainable(name) == "trainable tin"


def test_an_engine_refuses_a_base_that_is_no_gguf_file(metals: Any, tiny_bases: dict[str, Path]) -> None:
    folder = str(tiny_bases["gemma3-chat"])
    assert isinstance(loader_for(metals, folder), HubBase)
    with pytest.raises(CamelBellError) as caught:
        loader_for(metals, f"brass:{folder}").load("")
    assert caught.value.message == f"the engine 'brass' cannot run the base {folder!r}: it comes as no GGUF file"


@pytest.mark.parametrize("name", ["", "nonsense", "哈利/波特", "a/b/c", "/no/such/folder", "embedded "])
def test_a_base_that_nobody_knows_is_an_error_that_names_what_is_known(name: str) -> None:
    with pytest.raises(CamelBellError) as caught:
        loader_for(build_registry(), name)
    assert caught.value.message == f"no base model is called {name!r}"
    assert (
        caught.value.hint
        == "known: chatglm, embedded, endpoint, hub, the path of a model folder, or a hub id like org/name"
    )
