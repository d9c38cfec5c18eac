"""base_chatglm against the outputs of the original code, where they lie beside the checkout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from camelbell_plugins.base_chatglm.legacy_lora import convert
from camelbell_plugins.base_chatglm.modeling import rotary_frequencies, rotary_tables
from camelbell_plugins.base_chatglm.packed import pack_rows, unpack_rows

GOLDEN = Path(__file__).resolve().parents[2] / "shared/chatglm-golden"
pytestmark = [
    pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden data are not beside the checkout"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing_:FutureWarning"),
]
CLOSE = {"atol": 5e-5, "rtol": 0.0}
# Every folder with weights of its own that is there, so that checkpoints put beside these are tried too.
FOLDERS = sorted(f.parent.name for f in GOLDEN.glob("*/model.safetensors") if (f.parent / "cases.json").is_file())


class Golden:
    """A folder of golden data, its model opened in float32."""

    def __init__(self, name: str) -> None:
        told = json.loads((GOLDEN / name / "cases.json").read_text(encoding="utf-8"))
        self.name = name
        self.cases: dict[str, dict[str, Any]] = {case["name"]: case for case in told["cases"]}
        self.expected = load_file(GOLDEN / name / "expected.safetensors")
        own = (GOLDEN / name / "config.json").is_file()
        folder = GOLDEN / name if own else (GOLDEN / name / told["meta"]["weights"]).resolve().parent
        self.model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32).eval()

    def ids(self, case: str) -> Tensor:
        """The input ids of a case."""
        return torch.tensor(self.cases[case]["input_ids"])

    def get(self, case: str, what: str) -> Tensor | None:
        """An expected tensor, None where the case has none of the name."""
        return self.expected.get(f"{case}/{what}")

    def given(self, case: str) -> dict[str, Tensor]:
        """The mask and positions of a case that hands them to the model, as the released tokenizer makes them."""
        if not str(self.cases[case].get("attention_mask", "")).startswith("explicit"):
            return {}
        return {name: self.expected[f"{case}/{name}"] for name in ("attention_mask", "position_ids")}

    def kept(self, case: str) -> slice:
        """The positions whose logits are told."""
        words = str(self.cases[case].get("logits_positions", "")).split()
        return slice(-int(words[1]) if len(words) > 1 else -1, None) if words else slice(None)

    def real(self, case: str) -> Tensor:
        """Which tokens are no padding, (batch, length)."""
        lengths = self.cases[case].get("lengths")
        ids = self.ids(case)
        if lengths is None:
            return torch.ones_like(ids, dtype=torch.bool)
        return torch.arange(ids.shape[1]) >= ids.shape[1] - torch.tensor(lengths)[:, None]


@pytest.fixture(scope="module", params=FOLDERS)
def golden(request: pytest.FixtureRequest) -> Golden:
    """Each folder of golden data with weights of its own."""
    return Golden(request.param)


def test_logits_and_losses(golden: Golden) -> None:
    seen = 0
    for case in golden.cases:
        expected = golden.get(case, "logits")
        if expected is None or case == "cached_continuation":
            continue
        told = golden.cases[case].get("labels")
        labels = torch.tensor(told) if told else None
        with torch.no_grad():
            output = golden.model(golden.ids(case), labels=labels, **golden.given(case))
        explicit = bool(golden.given(case))  # what a row of pads says, which sees nothing, is nobody's business
        real = golden.real(case)[:, golden.kept(case)] if explicit else torch.ones(expected.shape[:2], dtype=torch.bool)
        torch.testing.assert_close(output.logits[:, golden.kept(case)][real], expected[real], **CLOSE)
        if labels is not None and golden.get(case, "loss") is not None:
            torch.testing.assert_close(output.loss, golden.get(case, "loss"), **CLOSE)
        seen += 1
    assert seen


def test_positions_and_masks(golden: Golden) -> None:
    from camelbell_plugins.base_chatglm import positions

    for case in golden.cases:
        expected, mask = golden.get(case, "position_ids"), golden.get(case, "attention_mask")
        ids, real = (golden.ids(case), golden.real(case)) if "input_ids" in golden.cases[case] else (None, None)
        if expected is None or ids is None:
            continue
        if not golden.given(case):
            real = torch.ones_like(real)  # the original derives them from all ids, pads counted
        made = positions.position_ids(ids, real, golden.model.config)
        assert torch.equal(made, expected), case
        if mask is not None:
            context = ~positions.answer_columns(ids, real, golden.model.config)
            seen = positions.attention_mask(real, context, ids.shape[1])
            row = real[:, None, :, None]
            assert torch.equal(~seen & row, mask & row), case


def test_left_padded_rows_equal_the_rows_alone(golden: Golden) -> None:
    for case in (case for case in golden.cases if "lengths" in golden.cases[case] and golden.given(case)):
        ids, real, expected = golden.ids(case), golden.real(case), golden.get(case, "logits")
        with torch.no_grad():
            batch = golden.model(ids, attention_mask=real.long()).logits
            for row in range(len(ids)):
                alone = golden.model(ids[row : row + 1, real[row]]).logits[0]
                torch.testing.assert_close(batch[row, real[row]], alone, **CLOSE)
                torch.testing.assert_close(alone, expected[row, real[row]], **CLOSE)


def test_greedy_tokens_with_and_without_cache(golden: Golden) -> None:
    one_stream = not golden.model.config.position_encoding_2d
    for case, told in golden.cases.items():
        for what, cached in (("generated", True), ("generated_no_cache", False)):
            expected = golden.get(case, what)
            # With one stream the original's cached steps contradict its own full forward; this model's do not.
            if one_stream and cached:
                expected = golden.get(case, "generated_no_cache")
            if expected is None:
                continue
            ids, real = golden.ids(case), golden.real(case)
            ids, real = ids[:, : told.get("prompt_length")], real[:, : told.get("prompt_length")]
            more = {"eos_token_id": told["eos_token_id"]} if "eos_token_id" in told else {}
            for mask in (real.long(), golden.given(case).get("attention_mask")):
                if mask is None:
                    continue
                made = golden.model.generate(
                    ids,
                    attention_mask=mask,
                    max_new_tokens=max(expected.shape[1], 1) if not more else 16,
                    do_sample=False,
                    use_cache=cached,
                    **more,
                )
                assert made[:, ids.shape[1] :].tolist() == expected.tolist(), (case, what)


@pytest.mark.parametrize("implicit", [False, True], ids=["positions given", "positions continued"])
def test_one_token_at_a_time(golden: Golden, implicit: bool) -> None:
    case = golden.cases.get("cached_continuation")
    if case is None:
        pytest.skip("the folder has no such case")
    expected = golden.get("cached_continuation", "full_forward_logits")
    expected = golden.get("cached_continuation", "logits") if expected is None else expected
    steps = golden.get("cached_continuation", "step_position_ids")
    if not implicit and not golden.model.config.position_encoding_2d:
        pytest.skip("the original's steps contradict its own full forward")
    with torch.no_grad():
        output = golden.model(golden.ids("cached_continuation"), use_cache=True)
        made = [output.logits[:, -1]]
        for number, token in enumerate(case["continuation_ids"][0]):
            given = {} if implicit else {"position_ids": steps[..., number : number + 1]}
            past = output.past_key_values
            output = golden.model(torch.tensor([[token]]), past_key_values=past, use_cache=True, **given)
            made.append(output.logits[:, -1])
    torch.testing.assert_close(torch.stack(made, 1), expected, **CLOSE)


def test_hidden_states_attention_and_cache(golden: Golden) -> None:
    expected = {key: value for key, value in golden.expected.items() if key.startswith("prompt_gmask/")}
    if "prompt_gmask/hidden/embeddings" not in expected:
        pytest.skip("the folder has no hidden states")
    parts: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda module, given, made: parts.__setitem__(name, made[0] if isinstance(made, tuple) else made)

    layer = golden.model.transformer.layers[0]
    modules = {
        "layer_0_input_layernorm": layer.input_layernorm,
        "layer_0_query_key_value": layer.attention.query_key_value,
        "layer_0_attention_out": layer.attention,
        "layer_0_post_attention_layernorm": layer.post_attention_layernorm,
        "layer_0_mlp_out": layer.mlp,
    }
    hooks = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    with torch.no_grad():
        output = golden.model(
            golden.ids("prompt_gmask"), output_hidden_states=True, output_attentions=True, use_cache=True
        )
    for hook in hooks:
        hook.remove()
    depth = golden.model.config.num_layers
    assert len(output.hidden_states) == depth + 1
    parts["embeddings"], parts["final_layernorm"] = output.hidden_states[0], output.hidden_states[-1]
    parts |= {f"layer_{number - 1}": output.hidden_states[number] for number in range(1, depth)}
    compared = [name for name in parts if f"prompt_gmask/hidden/{name}" in expected]
    assert "embeddings" in compared
    for name in compared:
        torch.testing.assert_close(parts[name], expected[f"prompt_gmask/hidden/{name}"], **CLOSE)
    for number, weights in enumerate(output.attentions):
        if f"prompt_gmask/attention_probs/layer_{number}" in expected:
            told = expected[f"prompt_gmask/attention_probs/layer_{number}"]
            torch.testing.assert_close(weights.squeeze(0), told.reshape(weights.shape[1:]), **CLOSE)
    kept = output.past_key_values.layers[0]
    for what, made in (("key", kept.keys), ("value", kept.values)):
        if f"prompt_gmask/past/layer_0_{what}" in expected:
            told = expected[f"prompt_gmask/past/layer_0_{what}"]  # (length, batch, heads, head)
            torch.testing.assert_close(made, told.permute(1, 2, 0, 3), **CLOSE)


def test_gradients(golden: Golden) -> None:
    case = golden.cases.get("prompt_answer")
    if case is None or "grad_norms" not in case:
        pytest.skip("the folder has no gradients")
    model = golden.model
    model.zero_grad()
    for checkpointing in (False, True):
        model.gradient_checkpointing_enable() if checkpointing else model.gradient_checkpointing_disable()
        model.train()
        loss = model(golden.ids("prompt_answer"), labels=torch.tensor(case["labels"])).loss
        loss.backward()
        torch.testing.assert_close(loss.detach(), golden.get("prompt_answer", "loss"), **CLOSE)
        parameters = dict(model.named_parameters())
        for name, norm in case["grad_norms"].items():
            if name in parameters:  # a tied head is the embedding
                assert float(parameters[name].grad.norm()) == pytest.approx(norm, abs=5e-5, rel=5e-5), name
        for key, expected in golden.expected.items():
            if key.startswith("prompt_answer/grad/"):
                torch.testing.assert_close(parameters[key.split("/grad/")[1]].grad, expected, **CLOSE)
        model.zero_grad()
    model.gradient_checkpointing_disable()
    model.eval()
    answer_only = golden.get("prompt_answer", "loss_answer_only")
    with torch.no_grad():
        labels = torch.tensor(case["labels_answer_only"])
        torch.testing.assert_close(model(golden.ids("prompt_answer"), labels=labels).loss, answer_only, **CLOSE)


@pytest.mark.parametrize("way", ["eager", "sdpa"])
def test_both_ways_to_attend_are_one(way: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(
        str(GOLDEN / "T1"), dtype=torch.float32, attn_implementation=way
    ).eval()
    golden = Golden("T1")
    with torch.no_grad():
        for case in ("prompt_gmask", "batch_left_padded", "long"):
            expected, real = golden.get(case, "logits"), golden.real(case)
            made = model(golden.ids(case), **golden.given(case)).logits[:, golden.kept(case)]
            real = real[:, golden.kept(case)]
            torch.testing.assert_close(made[real], expected[real], **CLOSE)


def test_the_masks_and_positions_of_march_2023() -> None:
    golden = Golden("T1_march2023")
    for case in golden.cases:
        # That code made them otherwise: it is the same model if they are handed to it.
        given = {name: golden.get(case, name) for name in ("attention_mask", "position_ids")}
        told = golden.cases[case].get("labels")
        with torch.no_grad():
            output = golden.model(golden.ids(case), labels=torch.tensor(told) if told else None, **given)
        torch.testing.assert_close(output.logits, golden.get(case, "logits"), **CLOSE)
        if told:
            torch.testing.assert_close(output.loss, golden.get(case, "loss"), **CLOSE)


def test_rotary_tables() -> None:
    told = load_file(GOLDEN / "rotary/rotary_dim64.safetensors")
    assert torch.equal(rotary_frequencies(64, torch.device("cpu")), told["inv_freq_fp16"].float())
    places = told["positions"]
    for dtype in (torch.float32, torch.bfloat16):
        cosines, sines = rotary_tables(torch.stack((places, places))[None], 128, dtype)
        assert cosines.dtype == dtype and cosines.shape == (1, len(places), 1, 2, 32)
        close = {"atol": 2e-6 if dtype == torch.float32 else 4e-3, "rtol": 0.0}
        for stream in (0, 1):
            for made, expected in ((cosines, told["cos_fp32"]), (sines, told["sin_fp32"])):
                torch.testing.assert_close(made[0, :, 0, stream].float(), expected[:, :32], **close)


def test_packing_is_that_of_the_released_kernels() -> None:
    told = {
        key.split("/")[1]: value
        for key, value in load_file(GOLDEN / "T1_int4/expected.safetensors").items()
        if key.startswith("layer0")
    }
    weight = load_file(GOLDEN / "T1/model.safetensors")["transformer.layers.0.attention.query_key_value.weight"][:32]
    for bits, packed, scale in ((4, "int4_packed", "int4_scale"), (8, "int8_weight", "int8_scale")):
        made, scales = pack_rows(weight, bits)
        assert torch.equal(scales, told[scale])
        assert torch.equal(made, told[packed])
        assert torch.equal(unpack_rows(made, scales, bits), told[f"int{bits}_dequant_fp32"])
    halves = unpack_rows(told["int4_packed"], told["int4_scale"], 4).half()
    torch.testing.assert_close(halves, told["int4_dequant_fp16"], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["lora_peft020", "lora_peft030"])
def test_the_adapters_of_2023_give_their_logits(name: str, tmp_path: Path) -> None:
    golden = Golden(name)
    told = convert(GOLDEN / name / "chatglm-lora.pt", tmp_path / "adapter", "T1", 32)
    assert told.startswith("3 layers, r=8, alpha=32: ")
    model = PeftModel.from_pretrained(golden.model, str(tmp_path / "adapter")).eval()
    if "layer0_delta_weight" in golden.expected:
        layer = model.base_model.model.transformer.layers[0].attention.query_key_value
        torch.testing.assert_close(layer.get_delta_weight("default"), golden.expected["layer0_delta_weight"], **CLOSE)
    with torch.no_grad():
        logits = model(golden.ids("prompt_gmask")).logits
        labels = torch.tensor(golden.cases["prompt_answer"]["labels"])
        loss = model(golden.ids("prompt_answer"), labels=labels).loss
    torch.testing.assert_close(logits, golden.get("prompt_gmask", "logits"), **CLOSE)
    torch.testing.assert_close(loss, golden.get("prompt_answer", "loss"), **CLOSE)


# --- the tokenizer --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy() -> tuple[Any, dict[str, Any]]:
    """The toy tokenizer and the outputs of the original one."""
    folder = GOLDEN / "toy_tokenizer"
    return AutoTokenizer.from_pretrained(str(folder)), json.loads((folder / "cases.json").read_text(encoding="utf-8"))


def test_the_tokenizer_gives_the_original_ids_and_texts(toy: tuple[Any, dict[str, Any]]) -> None:
    tokenizer, told = toy
    assert {text: tokenizer.convert_tokens_to_ids(text) for text in told["special_ids"]} == told["special_ids"]
    for case in told["encode"]:
        assert tokenizer.tokenize(case["text"]) == case["tokens"]
        assert tokenizer(case["text"], add_special_tokens=False)["input_ids"] == case["ids_no_special"]
        ids = tokenizer(case["text"])["input_ids"]
        assert ids == case["ids"]
        assert tokenizer.decode(case["ids_no_special"]) == case["decoded"]
        assert tokenizer.decode(ids) == case["decoded_with_special"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == case["decoded_skip_special"]
    for case in told["decode"]:
        assert tokenizer.decode(case["ids"]) == case["decoded"]
        assert tokenizer.decode(case["ids"], skip_special_tokens=True) == case["decoded_skip_special"]


def test_pairs_truncation_and_padding(toy: tuple[Any, dict[str, Any]]) -> None:
    tokenizer, told = toy
    pair = told["encode_pair"]
    assert tokenizer(pair["text"], pair["text_pair"])["input_ids"] == pair["ids"]
    for case in told["truncation"]:
        special = case.get("add_special_tokens", True)
        made = tokenizer(case["text"], truncation=True, max_length=case["max_length"], add_special_tokens=special)
        assert made["input_ids"] == case["ids"]
    ids = told["pad_longest"]["input_ids"]
    texts = ["你好", "问：你是谁？\n答："]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    assert batch["input_ids"].tolist() == ids
    assert batch["attention_mask"].tolist() == [[int(number != 3) for number in row] for row in ids]
    wide = tokenizer(texts, padding="max_length", max_length=16)
    assert wide["input_ids"] == told["pad_max_length_16"]["input_ids"]


def test_rounds_and_polished_replies(toy: tuple[Any, dict[str, Any]]) -> None:
    tokenizer, told = toy
    for case in told["chat_prompt"]:
        turns = []
        for asked, answered in case["history"] or ():
            turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
        turns.append({"role": "user", "content": case["query"]})
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert text == case["prompt"]
        ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        assert ids == tokenizer(case["prompt"])["input_ids"]
    for case in told["process_response"]:
        assert tokenizer.polish_reply(case["response"]) == case["processed"]


def test_text_to_logits(toy: tuple[Any, dict[str, Any]]) -> None:
    golden = Golden("T1")
    case = golden.cases["chat_text"]
    ids = toy[0](case["text"], return_tensors="pt")["input_ids"]
    assert ids.tolist() == case["input_ids"]
    made = golden.model.generate(ids, max_new_tokens=16, do_sample=False)[0, ids.shape[1] :]
    assert made.tolist() == golden.expected["chat_text/generated"][0].tolist()
    assert toy[0].decode(made) == case["generated_text"]
