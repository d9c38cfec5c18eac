"""base_chatglm: folders as they were released, saving, generation, the tokenizer, quantized weights, old LoRA files."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from chatglm_tiny import BLANKS, MARKS, chatglm_base, tiny_chatglm, tokenizer_folder
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

from camelbell_core.errors import CamelBellError
from camelbell_core.model import loader_for, open_pretrained
from camelbell_core.registry import build_registry
from camelbell_plugins.base_chatglm import ChatGLMBase
from camelbell_plugins.base_chatglm.legacy_lora import convert
from camelbell_plugins.base_chatglm.packed import pack_rows, weight_files
from camelbell_plugins.base_chatglm.positions import position_ids

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing_:FutureWarning"),
]
TEXTS = ["你好，我是哈利。", "Hello, I am Harry Potter and I go to school."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ChatGLM as transformers saves it, with its tokenizer."""
    return chatglm_base(tmp_path_factory.mktemp("chatglm"))


@pytest.fixture
def tokenizer(folder: Path) -> Any:
    """Its tokenizer."""
    return AutoTokenizer.from_pretrained(str(folder))


@pytest.fixture
def model(folder: Path) -> Any:
    """The model, opened anew."""
    return AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32).eval()


def released(model: Any) -> dict[str, Tensor]:
    """Return a state dict as the releases have it: both halves of the tie, and the frequencies of every layer."""
    state = {key: value.detach().clone() for key, value in model.state_dict().items()}
    state["lm_head.weight"] = model.lm_head.weight.detach().clone()
    for number in range(model.config.num_layers):
        state[f"transformer.layers.{number}.attention.rotary_emb.inv_freq"] = torch.full((2,), 7.0).half()
    return state


def config_json(model: Any, **changes: Any) -> str:
    """Return config.json with the released names only."""
    names = (
        *("bos_token_id", "eos_token_id", "mask_token_id", "gmask_token_id", "pad_token_id", "hidden_size"),
        *("inner_hidden_size", "layernorm_epsilon", "max_sequence_length", "num_attention_heads", "num_layers"),
        *("position_encoding_2d", "vocab_size"),
    )
    told = {name: getattr(model.config, name) for name in names}
    told |= {
        "architectures": ["ChatGLMModel"],
        "auto_map": {
            "AutoConfig": "configuration_chatglm.ChatGLMConfig",
            "AutoModel": "modeling_chatglm.ChatGLMForConditionalGeneration",
        },
        "model_type": "chatglm",
        "torch_dtype": "float16",
        "transformers_version": "4.27.1",
    }
    return json.dumps({**told, **changes})


def as_shards(folder: Path, state: dict[str, Tensor]) -> None:
    names = sorted(state)
    parts = {f"pytorch_model-0000{n + 1}-of-00002.bin": names[n::2] for n in range(2)}
    for name, keys in parts.items():
        torch.save({key: state[key] for key in keys}, folder / name)
    index = {"metadata": {"total_size": 1}, "weight_map": {key: name for name, keys in parts.items() for key in keys}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf-8")


def as_bin(folder: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, folder / "pytorch_model.bin")


def as_safetensors(folder: Path, state: dict[str, Tensor]) -> None:
    save_file(state, str(folder / "model.safetensors"), metadata={"format": "pt"})


FORMS = [as_shards, as_bin, as_safetensors]


# --- registering ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        "import camelbell_plugins.base_chatglm\nfrom transformers import AutoModelForCausalLM, AutoConfig",
        "from transformers import AutoModelForCausalLM, AutoConfig\nimport camelbell_plugins.base_chatglm",
        "import transformers\nimport camelbell_plugins.base_chatglm\nfrom transformers import *",
        "import camelbell_plugins.base_chatglm\nimport transformers.generation.utils\nfrom transformers import AutoConfig"
        "\nfrom transformers import AutoModelForCausalLM",
        "import camelbell_plugins.base_chatglm\nimport peft\nfrom transformers import AutoModelForCausalLM, AutoConfig",
    ],
)
def test_importing_the_plugin_registers_before_and_after_transformers(script: str, folder: Path) -> None:
    more = """
import sys
from transformers import AutoTokenizer
folder = sys.argv[1]
model = AutoModelForCausalLM.from_pretrained(folder)
print(type(AutoConfig.from_pretrained(folder)).__name__, type(model).__name__)
print(type(AutoTokenizer.from_pretrained(folder)).__name__)
"""
    done = subprocess.run(
        [sys.executable, "-c", script + more, str(folder)], capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["ChatGLMConfig", "ChatGLMForConditionalGeneration", "ChatGLMTokenizer"]


def test_importing_the_plugin_alone_imports_no_transformers() -> None:
    script = (
        "import sys, camelbell_plugins.base_chatglm; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, encoding="utf-8", check=True)
    assert done.stdout.strip() == "[]"


def test_its_loader_takes_its_folders_and_hub_ids_and_no_others(folder: Path, tmp_path: Path) -> None:
    loader = loader_for(build_registry(), str(folder))
    assert isinstance(loader, ChatGLMBase)
    assert loader.profile(str(folder)) == "chatglm-6b"
    assert isinstance(loader_for(build_registry(), "THUDM/chatglm-6b-int4"), ChatGLMBase)
    later = {"model_type": "chatglm", "ffn_hidden_size": 13696}  # ChatGLM2: another architecture
    (tmp_path / "config.json").write_text(json.dumps(later), encoding="utf-8")
    assert not loader.accepts(str(tmp_path))
    assert not loader.accepts("THUDM/glm-4-9b")
    base = loader.load_trainable(str(folder))
    assert (base.name, len(base.fingerprint)) == (str(folder), 64)


# --- folders as they were released ----------------------------------------------------------------


@pytest.mark.parametrize("write", FORMS)
@pytest.mark.parametrize("tied", [True, False])
def test_released_folders_open_to_the_same_logits(
    write: Callable[[Path, dict[str, Tensor]], None], tied: bool, folder: Path, tmp_path: Path
) -> None:
    config = AutoConfig.from_pretrained(str(folder))
    plain = tiny_chatglm(config.vocab_size, {}, **{**config.to_diff_dict(), "tie_word_embeddings": tied})
    more = {} if tied else {"tie_word_embeddings": False}
    (tmp_path / "config.json").write_text(config_json(plain, **more), encoding="utf-8")
    write(tmp_path, released(plain))
    opened, found = AutoModelForCausalLM.from_pretrained(str(tmp_path), dtype=torch.float32, output_loading_info=True)
    assert not any(found[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert (opened.lm_head.weight is opened.transformer.word_embeddings.weight) is tied
    ids = torch.tensor([[9, 20, 31, config.gmask_token_id, config.bos_token_id, 40, 41]])
    with torch.no_grad():
        torch.testing.assert_close(opened(ids).logits, plain(ids).logits, rtol=0, atol=0)
    bare = AutoModel.from_pretrained(str(tmp_path), dtype=torch.float32)
    with torch.no_grad():
        states = opened.transformer(ids).last_hidden_state
        torch.testing.assert_close(bare(ids).last_hidden_state, states, rtol=0, atol=0)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("write", FORMS)
@pytest.mark.parametrize("everything", [False, True], ids=["blocks", "embeddings too"])
def test_packed_releases_are_unpacked(
    write: Callable[[Path, dict[str, Tensor]], None], bits: int, everything: bool, model: Any, tmp_path: Path
) -> None:
    state = released(model)
    for key in [key for key in state if state[key].ndim == 2 and ("layers" in key or everything)]:
        packed, scale = pack_rows(state[key], bits)
        state |= {key: packed, key + "_scale": scale}
        integers = torch.stack((packed >> 4, (packed << 4) >> 4), -1).flatten(1) if bits == 4 else packed
        twin = dict(model.named_parameters()).get(key)
        if twin is not None:
            twin.data = integers.float() * scale.float()[:, None]
    (tmp_path / "config.json").write_text(config_json(model, quantization_bit=bits), encoding="utf-8")
    write(tmp_path, state)
    for dtype in (torch.float32, torch.bfloat16):
        opened = AutoModelForCausalLM.from_pretrained(str(tmp_path), dtype=dtype)
        for name, weight in model.named_parameters():
            assert torch.equal(dict(opened.named_parameters())[name], weight.to(dtype)), name
    opened.save_pretrained(str(tmp_path / "saved"))
    assert AutoConfig.from_pretrained(str(tmp_path / "saved")).quantization_bit == 0
    again = AutoModelForCausalLM.from_pretrained(str(tmp_path / "saved"), dtype=torch.bfloat16)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), opened.parameters(), strict=True))


def test_saving_writes_the_released_names(model: Any, tmp_path: Path) -> None:
    model.save_pretrained(str(tmp_path))
    keys = set(load_file(tmp_path / "model.safetensors"))
    assert keys | {"lm_head.weight"} == {key for key in released(model) if not key.endswith("inv_freq")}
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    for name in ("num_layers", "inner_hidden_size", "layernorm_epsilon", "max_sequence_length", "gmask_token_id"):
        assert config[name] == getattr(model.config, name)
    assert config["model_type"] == "chatglm"
    assert model.config.num_hidden_layers == model.config.num_layers == 2


def test_the_frequencies_of_a_checkpoint_and_the_meta_device_change_nothing(folder: Path, model: Any) -> None:
    # Made without memory for its weights and filled then, as device_map does it.
    spread = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32, device_map="cpu")
    ids = torch.tensor([[9, model.config.gmask_token_id, model.config.bos_token_id]])
    with torch.no_grad():
        assert torch.equal(spread(ids).logits, model(ids).logits)


@pytest.mark.parametrize("damage", ["lacks", "has others"])
def test_a_checkpoint_that_lacks_weights_or_has_others_is_named_and_refused(
    damage: str, folder: Path, model: Any, tmp_path: Path
) -> None:
    state = released(model)
    key = "transformer.layers.1.mlp.dense_4h_to_h.weight"
    if damage == "lacks":
        del state[key]
    else:
        key = "transformer.layers.1.mlp.gate.weight"
        state[key] = torch.zeros(2)
    (tmp_path / "config.json").write_text(config_json(model), encoding="utf-8")
    tokenizer_folder(tmp_path)
    as_safetensors(tmp_path, state)
    with pytest.raises(CamelBellError, match=key) as caught:
        open_pretrained("mine", tmp_path, "")
    assert caught.value.hint == "fetch it anew, or check its config.json"


class Sneaky:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("sneaked-in",)


@pytest.mark.parametrize("bits", [0, 4])
def test_a_pickle_that_runs_code_is_refused(bits: int, model: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text(config_json(model, quantization_bit=bits), encoding="utf-8")
    torch.save({**released(model), "extra": Sneaky()}, tmp_path / "pytorch_model.bin")
    with pytest.raises((pickle.UnpicklingError, OSError, ValueError)):
        AutoModelForCausalLM.from_pretrained(str(tmp_path))
    assert not (tmp_path / "sneaked-in").exists()


def test_a_folder_without_weights_is_an_error_that_says_which_files_are_wanted(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"holds no model\.safetensors and no pytorch_model\.bin"):
        weight_files(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 5}, "no multiple of 5 heads"),
        ({"quantization_bit": 3}, "must be 0, 4 or 8, not 3"),
        ({"pre_seq_len": 128}, "p-tuning prefixes are not supported"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_chatglm(100, {}, **changes)


# --- positions, masks, caches ---------------------------------------------------------------------


def test_the_published_example_of_positions(folder: Path) -> None:
    config = AutoConfig.from_pretrained(str(folder))
    config.gmask_token_id, config.bos_token_id, config.mask_token_id = 130001, 130004, 130000
    ids = torch.tensor([[5, 74874, 130001, 130004]])  # 你好
    real = torch.ones_like(ids, dtype=torch.bool)
    assert position_ids(ids, real, config).tolist() == [[[0, 1, 2, 2], [0, 0, 0, 1]]]
    inside = torch.tensor([[5, 130000, 74874, 130004, 9, 9]])
    real = torch.ones_like(inside, dtype=torch.bool)
    assert position_ids(inside, real, config).tolist() == [[[0, 1, 2, 1, 1, 1], [0, 0, 0, 1, 2, 3]]]
    real[0, 0] = False
    assert position_ids(inside, real, config)[0].tolist() == [[0, 0, 1, 0, 0, 0], [0, 0, 0, 1, 2, 3]]


@pytest.mark.parametrize("two_streams", [True, False])
def test_every_way_to_go_on_gives_the_logits_of_the_whole(two_streams: bool, folder: Path) -> None:
    config = AutoConfig.from_pretrained(str(folder))
    changes = {**config.to_diff_dict(), "position_encoding_2d": two_streams}
    model = tiny_chatglm(config.vocab_size, {}, **changes)
    torch.manual_seed(1)
    for mask in (config.gmask_token_id, config.mask_token_id):
        context, answer = torch.randint(9, 200, (2, 5)), torch.randint(9, 200, (2, 6))
        marks = torch.tensor([[mask, config.bos_token_id]]).expand(2, 2)
        ids = torch.cat((context, marks, answer), 1)
        with torch.no_grad():
            whole = model(ids, use_cache=False).logits
            output = model(ids[:, :7], use_cache=True)
            one_by_one = [output.logits]
            for place in range(7, 10):
                output = model(ids[:, place : place + 1], past_key_values=output.past_key_values)
                one_by_one.append(output.logits)
            output = model(ids[:, 10:], past_key_values=output.past_key_values)  # several at once
        torch.testing.assert_close(torch.cat((*one_by_one, output.logits), 1), whole, atol=2e-5, rtol=0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_no_logit(side: str, model: Any, tokenizer: Any) -> None:
    tokenizer.padding_side = side
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        together = model(**batch).logits
        for row, text in enumerate(TEXTS):
            alone = model(**tokenizer(text, return_tensors="pt")).logits[0]
            torch.testing.assert_close(together[row, batch["attention_mask"][row].bool()], alone, atol=2e-5, rtol=0)
    assert together.isfinite().all()


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"cache_implementation": "static"}, {"use_cache": False}])
def test_generation_of_a_padded_batch_equals_that_of_each_row(
    options: dict[str, Any], model: Any, tokenizer: Any
) -> None:
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    settings = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, **options}
    together = model.generate(**batch, **settings)[:, batch["input_ids"].shape[1] :]
    for row, text in enumerate(TEXTS):
        alone = tokenizer(text, return_tensors="pt")
        made = model.generate(**alone, **settings)[0, alone["input_ids"].shape[1] :]
        assert together[row].tolist() == made.tolist()


def test_text_without_its_special_tokens_is_an_error_that_says_so(model: Any, tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=r"row 0 of the input has no \[gMASK\] or \[MASK\]"):
        model(torch.tensor([[9, 10, 11]]))
    with pytest.raises(ValueError, match="row 1 of the input has no <sop>"):
        gmask, sop = model.config.gmask_token_id, model.config.bos_token_id
        model(torch.tensor([[9, gmask, sop], [9, gmask, 10]]))
    with pytest.raises(ValueError, match="inputs_embeds need position_ids"):
        model(inputs_embeds=torch.zeros(1, 3, 32))
    ids = tokenizer(TEXTS[0], return_tensors="pt")["input_ids"]
    places = position_ids(ids, torch.ones_like(ids, dtype=torch.bool), model.config)
    with torch.no_grad():
        by_states = model(inputs_embeds=model.get_input_embeddings()(ids), position_ids=places).logits
        torch.testing.assert_close(by_states, model(ids).logits, atol=1e-5, rtol=0)


def test_peft_and_gradient_checkpointing_train_it(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    targets = ["query_key_value", "dense_4h_to_h"]
    tuned = get_peft_model(model, LoraConfig(r=8, lora_alpha=64, target_modules=targets, task_type="CAUSAL_LM"))
    batch = tokenizer(TEXTS, ["好的。", "Yes."], padding=True, return_tensors="pt")
    optimizer = torch.optim.AdamW([p for p in tuned.parameters() if p.requires_grad], lr=1e-2)
    tuned.gradient_checkpointing_enable()
    tuned.enable_input_require_grads()
    tuned.train()
    losses = []
    for _ in range(20):
        loss = tuned(**batch, labels=batch["input_ids"].where(batch["attention_mask"].bool(), -100)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.1
    tuned.save_pretrained(str(tmp_path))
    with torch.no_grad():
        expected = tuned.eval()(**batch).logits
        fresh = PeftModel.from_pretrained(tuned.unload(), str(tmp_path)).eval()
        torch.testing.assert_close(fresh(**batch).logits, expected, atol=1e-6, rtol=0)


# --- quantize -------------------------------------------------------------------------------------


@pytest.mark.parametrize("quantize", ["8bit", "4bit"])
def test_bitsandbytes_opens_it_in_8_and_4_bits(quantize: str, tokenizer: Any, tmp_path: Path) -> None:
    folder = chatglm_base(tmp_path, hidden_size=64, inner_hidden_size=128)  # blocks of 64 weights share a scale
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    bitsandbytes = pytest.importorskip("bitsandbytes")
    loader = loader_for(build_registry(), str(folder), quantize)
    made = loader.load_trainable(str(folder)).model
    kind = bitsandbytes.nn.Linear8bitLt if quantize == "8bit" else bitsandbytes.nn.Linear4bit
    assert isinstance(made.transformer.layers[0].attention.query_key_value, kind)
    ids = tokenizer(TEXTS[0], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        near, exact = made(ids).logits.float(), model(ids).logits
    assert torch.nn.functional.cosine_similarity(near.flatten(), exact.flatten(), dim=0) > 0.95
    assert not torch.equal(near, exact)


# --- the tokenizer --------------------------------------------------------------------------------


def test_special_pieces_have_the_released_order(tokenizer: Any) -> None:
    ids = [tokenizer.convert_tokens_to_ids(piece) for piece in ("<unk>", "<s>", "</s>", "<pad>")]
    assert ids == [0, 1, 2, 3]
    assert tokenizer.decode(tokenizer("你好\tHello\n\n  world", add_special_tokens=False)["input_ids"]) == (
        "你好\tHello\n\n  world"
    )
    assert tokenizer.gmask_token_id == tokenizer.convert_tokens_to_ids("[gMASK]") != tokenizer.unk_token_id
    assert tokenizer.end_token_id == 2


@pytest.mark.parametrize("count", [1, 2, 79, 80, 81, 165])
@pytest.mark.parametrize(("before", "after"), [("你", "好"), ("a", "b")])
def test_runs_of_blanks_take_the_longest_pieces(count: int, before: str, after: str, tokenizer: Any) -> None:
    tokens = tokenizer.tokenize(before + " " * count + after)
    whole, rest = divmod(count, 80)
    wanted = ["<|blank_80|>"] * whole + ([f"<|blank_{rest}|>"] if rest > 1 else [])
    assert [token for token in tokens if token.startswith("<|blank")] == wanted
    ids = tokenizer(before + " " * count + after)["input_ids"]
    assert tokenizer.decode(ids) == before + " " * count + after


@pytest.mark.parametrize(("wide", "narrow"), [("你好，世界！", "你好,世界!"), ("问：１２？", "问:12?")])
def test_full_width_marks_are_those_of_ascii(wide: str, narrow: str, tokenizer: Any) -> None:
    assert tokenizer(wide)["input_ids"] == tokenizer(narrow)["input_ids"]


@pytest.mark.parametrize("text", ["写 [gMASK] <sop> <eop>。", "Write <eop> and [MASK]."])
def test_special_tokens_that_people_spell_out_are_text_in_a_chat(text: str, tokenizer: Any) -> None:
    made = tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True)["input_ids"]
    special = {tokenizer.mask_token_id, tokenizer.gmask_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}
    assert [number for number in made if number in special] == [tokenizer.gmask_token_id, tokenizer.bos_token_id]
    assert tokenizer("一[MASK]二")["input_ids"].count(tokenizer.mask_token_id) == 1  # where it is meant


@pytest.mark.parametrize(("asked", "answered"), [("你好", "你好！"), ("Hello", "Hi!")])
def test_a_conversation_is_laid_out_in_rounds_from_0(asked: str, answered: str, tokenizer: Any) -> None:
    turns = [
        {"role": "system", "content": "我是哈利。"},
        {"role": "user", "content": asked},
        {"role": "assistant", "content": answered},
        {"role": "user", "content": asked},
    ]
    text = f"[Round 0]\n问：我是哈利。\n\n{asked}\n答：{answered}\n[Round 1]\n问：{asked}\n答："
    assert tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == text
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert ids == tokenizer(text)["input_ids"]
    whole = [*turns, {"role": "assistant", "content": answered}]
    assert tokenizer.apply_chat_template(whole)["input_ids"] == tokenizer(text, answered)["input_ids"]
    batch = tokenizer.apply_chat_template([turns, turns[1:2]], padding=True, return_tensors="pt")
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, len(ids))
    assert batch["input_ids"][1, -2:].tolist() == [tokenizer.gmask_token_id, tokenizer.bos_token_id]
    with pytest.raises(ValueError, match="some of the conversations end in an answer"):
        tokenizer.apply_chat_template([turns, whole])


def test_the_first_releases_lack_pieces_and_have_image_tokens(tmp_path: Path) -> None:
    old = AutoTokenizer.from_pretrained(str(tokenizer_folder(tmp_path / "old", slim=False)))
    text = old.vocab_size - 20000 - len(MARKS) - len(BLANKS) - 256
    first = 20000 + text
    ids = [old.convert_tokens_to_ids(piece) for piece in (*MARKS, *BLANKS, *(f"<0x{b:02X}>" for b in range(256)))]
    assert ids == list(range(first, old.vocab_size))
    assert old.eos_token == "<eop>"  # what the models were trained to end with, whatever the file says
    for words in ("你好\t\n   世界 𠮷😀", "Hello  world\n"):
        ids = old(words)["input_ids"]
        assert ids[-2:] == [old.gmask_token_id, old.bos_token_id] == [first + 1, first + 4]
        assert min(ids) >= 20000
        assert old.decode(ids, skip_special_tokens=True) == words
    assert old.decode([5, 19999, *ids]) == words
    assert old.convert_ids_to_tokens(7) == "<image_7>" and old.convert_tokens_to_ids("<image_7>") == 7


def test_a_saved_tokenizer_is_the_same(tokenizer: Any, folder: Path, tmp_path: Path) -> None:
    tokenizer.save_pretrained(str(tmp_path / "saved"))
    for other in (
        AutoTokenizer.from_pretrained(str(tmp_path / "saved"), trust_remote_code=False),
        pickle.loads(pickle.dumps(tokenizer)),
    ):
        assert len(other) == len(tokenizer) and other.padding_side == "left"
        for text in (*TEXTS, "[gMASK]</s>", "一[MASK]二", "a\n\t  b"):
            ids = tokenizer(text)["input_ids"]
            assert other(text)["input_ids"] == ids
            assert other.decode(ids) == tokenizer.decode(ids)
    assert len(tokenizer.get_vocab()) == len(tokenizer)


def test_half_a_character_and_unused_ids_decode(tokenizer: Any) -> None:
    ids = tokenizer("𠮷", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == "𠮷"
    assert "\ufffd" in tokenizer.decode(ids[:-1])
    assert tokenizer.decode([*ids, len(tokenizer) + 5]) == "𠮷"


# --- LoRA files of 2023 ---------------------------------------------------------------------------


def merged(a: Tensor, b: Tensor) -> Tensor:
    """Return what peft before 0.3 adds to the weight: two LoRAs, for the first and the last third of its rows."""
    rank, hidden = b.shape[1], a.shape[1]
    delta = torch.zeros(3 * hidden, hidden)
    delta[:hidden] = b[:hidden, :, 0] @ a[:rank]
    delta[2 * hidden :] = b[hidden:, :, 0] @ a[rank:]
    return delta


@pytest.mark.parametrize("prefix", ["base_model.model.", "module.base_model.model.", ""])
@pytest.mark.parametrize("kind", ["merged", "plain"])
def test_an_old_lora_file_adds_the_same(kind: str, prefix: str, model: Any, tokenizer: Any, tmp_path: Path) -> None:
    torch.manual_seed(2)
    state, deltas = {}, []
    for number in range(2):
        a = torch.randn(16 if kind == "merged" else 8, 32)
        b = torch.randn(64, 8, 1) if kind == "merged" else torch.randn(96, 8)
        deltas.append(merged(a, b) if kind == "merged" else b @ a)
        name = f"{prefix}transformer.layers.{number}.attention.query_key_value.lora_"
        middle = ".default" if kind == "plain" else ""
        state |= {f"{name}A{middle}.weight": a.half(), f"{name}B{middle}.weight": b.half()}
        deltas[-1] = (
            merged(a.half().float(), b.half().float()) if kind == "merged" else b.half().float() @ a.half().float()
        )
    torch.save(state, tmp_path / "chatglm-lora.pt")
    convert(tmp_path / "chatglm-lora.pt", tmp_path / "made", "base", 32)
    ids = tokenizer(TEXTS[1], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        adapted = PeftModel.from_pretrained(model, str(tmp_path / "made")).eval()
        logits = adapted(ids).logits
        plain = adapted.unload()
        for layer, delta in zip(plain.transformer.layers, deltas, strict=True):
            layer.attention.query_key_value.weight += 4.0 * delta
        torch.testing.assert_close(logits, plain(ids).logits, atol=1e-4, rtol=1e-4)


def test_the_command_imports_an_adapter(camelbell: Callable[..., Any], tmp_path: Path) -> None:
    name = "base_model.model.transformer.layers.0.attention.query_key_value.lora_"
    state = {f"{name}A.weight": torch.ones(16, 32), f"{name}B.weight": torch.ones(64, 8, 1)}
    torch.save(state, tmp_path / "chatglm-lora.pt")
    done = camelbell("import-adapter", "chatglm-lora.pt")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].startswith("1 layers, r=8, alpha=32: merged")
    config = json.loads((tmp_path / "chatglm-lora/adapter_config.json").read_text(encoding="utf-8"))
    assert (config["r"], config["lora_alpha"], config["target_modules"]) == (16, 64, ["query_key_value"])
    assert (tmp_path / "chatglm-lora/adapter_model.safetensors").is_file()


KEY = "base_model.model.transformer.layers.0.attention.query_key_value.lora_"


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({KEY + "A.weight": torch.ones(16, 32), "extra": Sneaky()}, "holds more than tensors"),
        ({KEY + "A.weight": torch.ones(16, 32)}, "has only one of lora_A and lora_B"),
        ({}, "it holds no weights"),
        ({"lm_head.weight": torch.ones(2)}, "'lm_head.weight' is no LoRA weight"),
        ([torch.ones(2)], "is no dict of tensors"),
        ({KEY + "A.weight": torch.ones(16, 32), KEY + "B.weight": torch.ones(64, 7, 1)}, "of no known LoRA"),
        ({KEY + "A.weight": torch.ones(8, 32), KEY + "B.weight": torch.ones(95, 8)}, "of no known LoRA"),
    ],
)
def test_a_file_that_is_no_such_lora_is_an_error_that_says_why(
    state: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(state, tmp_path / "lora.pt")
    with pytest.raises(CamelBellError) as caught:
        convert(tmp_path / "lora.pt", tmp_path / "made", "base", 32)
    assert message in caught.value.message
    assert not (tmp_path / "sneaked-in").exists()
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("data", [b"", b"no pickle", None])
def test_a_file_that_is_not_there_or_torn_is_an_error(data: bytes | None, tmp_path: Path) -> None:
    if data is not None:
        (tmp_path / "lora.pt").write_bytes(data)
    with pytest.raises(CamelBellError):
        convert(tmp_path / "lora.pt", tmp_path / "made", "base", 32)
