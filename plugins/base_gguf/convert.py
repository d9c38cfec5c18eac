"""From the packages of a GGUF file to the cache, once: whole, to be run as it is, and as a transformers folder."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from camelbell_core.character import data_dir
from camelbell_core.errors import CamelBellError, ModelMismatch
from camelbell_plugins.base_gguf import Package
from camelbell_plugins.base_gguf.header import Header, Tensor, read_header
from camelbell_plugins.base_gguf.tokenizer import build_backend, build_tokenizer, vocabulary

_FORMAT = 1  # raised when the folder for transformers changes
_FILE_FORMAT = 2  # raised when the folder with the file itself changes
_SPECIAL = {"bos": "bos", "eos": "eos", "pad": "padding"}


def cached_folder(base: str, package: Package) -> Path:
    """Return the transformers folder of a packaged model, made now if the cache has none."""

    def make(draft: Path) -> None:
        file = assemble(package, draft / "model.gguf")
        write_folder(read_header(file), file, draft)
        file.unlink()

    return _cached(f"{base}-{package.sha256[:12]}-{_FORMAT}", "config.json", package, make)


def cached_file(base: str, package: Package) -> Path:
    """Return the folder with the packaged model's ``model.gguf`` and its tokenizer, made now if the cache has none.

    Neither torch nor transformers is imported for it.
    """

    def make(draft: Path) -> None:
        header = read_header(assemble(package, draft / "model.gguf"))
        write_tokenizer(header.metadata, draft)

    return _cached(f"{base}-{package.sha256[:12]}-gguf-{_FILE_FORMAT}", "special.json", package, make)


def write_tokenizer(metadata: dict[str, Any], folder: Path) -> None:
    """Write the tokenizer as camelbell_core/tokens.py reads it."""
    special: dict[str, Any] = {
        f"{name}_token_id": metadata[f"tokenizer.ggml.{key}_token_id"] for name, key in _SPECIAL.items()
    }
    special["chat_template"] = metadata.get("tokenizer.chat_template")
    (folder / "special.json").write_text(json.dumps(special, ensure_ascii=False), encoding="utf-8")
    if metadata["tokenizer.ggml.model"] == "llama":
        text = json.dumps(vocabulary(metadata), ensure_ascii=False)
        (folder / "vocabulary.json").write_text(text, encoding="utf-8")
    else:
        build_backend(metadata).save(str(folder / "tokenizer.json"), pretty=False)


def _cached(name: str, last: str, package: Package, make: Callable[[Path], None]) -> Path:
    """Return a folder of the model cache that holds the file ``last``; ``make`` fills it where it is not there."""
    folder = data_dir() / "models" / name
    if (folder / last).is_file():
        return folder
    if package.notice:
        print(package.notice, file=sys.stderr)
    from filelock import FileLock

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f"{name}.lock"):
            if not (folder / last).is_file():
                _make(folder, make)
    except OSError as error:
        raise CamelBellError(f"cannot write the model cache {str(folder)!r}: {error.strerror or error}") from error
    return folder


def _make(folder: Path, make: Callable[[Path], None]) -> None:
    draft = folder.parent / f"{folder.name}.new"
    for old in (draft, folder):
        shutil.rmtree(old, ignore_errors=True)
    draft.mkdir()
    try:
        make(draft)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def assemble(package: Package, target: Path) -> Path:
    """Write the parts of the packages as one file and check its hash; nothing of them is imported."""
    digest = sha256()
    with target.open("wb") as out:
        for part in _parts(package):
            with part.open("rb") as source:
                while block := source.read(1 << 22):
                    digest.update(block)
                    out.write(block)
    if digest.hexdigest() != package.sha256:
        target.unlink()
        raise ModelMismatch(
            f"the files of {package.model} have the SHA-256 {digest.hexdigest()}, not {package.sha256}",
            f"install them anew: {package.install}",
        )
    return target


def _parts(package: Package) -> Iterator[Path]:
    for name in package.distributions:
        try:
            found = distribution(name)
        except PackageNotFoundError as error:
            raise CamelBellError(f"the base model {package.model} is not installed", package.install) from error
        if found.version != package.version:
            raise ModelMismatch(f"{name} is version {found.version}, not {package.version}", package.install)
        files = [file for file in found.files or () if package.pattern in file.name]
        if not files:
            raise ModelMismatch(f"{name} holds no file {package.pattern}*", package.install)
        paths = [Path(str(found.locate_file(file))) for file in sorted(files, key=str)]
        if lost := [path for path in paths if not path.is_file()]:
            raise ModelMismatch(f"the file {lost[0]} of {name} is gone", f"install it anew: {package.install}")
        yield from paths


def write_folder(header: Header, file: Path, folder: Path) -> None:
    """Write configuration, tokenizer and weights of a Gemma 3 or Llama file for transformers.

    The weights are rounded to bfloat16: the steps of their 4-bit quantisation are far coarser.
    """
    from safetensors.torch import save_file

    architecture = header.metadata.get("general.architecture")
    if architecture not in _CONFIGS:
        raise ModelMismatch(f"{file} holds a model of the architecture {architecture!r}, not {' or '.join(_CONFIGS)}")
    config = _CONFIGS[architecture](header.metadata)
    config.tie_word_embeddings = "output.weight" not in header.tensors
    tokenizer = build_tokenizer(header.metadata)
    state = dict(_weights(header, file, config))
    save_file(state, str(folder / "model.safetensors"), metadata={"format": "pt"})
    tokenizer.save_pretrained(str(folder))
    config.save_pretrained(str(folder))


def _weights(header: Header, file: Path, config: Any) -> Iterator[tuple[str, Any]]:
    """Yield the parameters under the names of transformers, bfloat16."""
    import numpy as np
    import torch
    from gguf import MODEL_ARCH, GGMLQuantizationType, get_tensor_name_map
    from gguf.quants import dequantize
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        wanted = dict(AutoModelForCausalLM.from_config(config).named_parameters())
    architecture = MODEL_ARCH[header.metadata["general.architecture"].upper()]
    names = get_tensor_name_map(architecture, config.num_hidden_layers)
    data = np.memmap(file, np.uint8, "r")
    missing = []
    for name, parameter in wanted.items():
        stem, suffix = name.rsplit(".", 1)
        source = header.tensors.get(f"{names.get_name(stem)}.{suffix}")
        if source is None:
            missing.append(name)
            continue
        kind = GGMLQuantizationType(source.type)
        values = torch.from_numpy(np.array(dequantize(raw_weights(data, source, kind), kind))).reshape(source.shape)
        values = _as_transformers(stem, values, config)
        if values.shape != parameter.shape:
            raise ModelMismatch(f"the tensor {name} has the shape {tuple(values.shape)}, not {tuple(parameter.shape)}")
        yield name, values.to(torch.bfloat16).contiguous()
    if missing:
        raise ModelMismatch(f"the model file lacks the tensor {missing[0]} and {len(missing) - 1} more")


def raw_weights(data: Any, tensor: Tensor, kind: Any) -> Any:
    """Return a tensor's bytes as the gguf package dequantises them."""
    import numpy as np
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    block, size = GGML_QUANT_SIZES[kind]
    count = int(np.prod(tensor.shape))
    raw = data[tensor.offset : tensor.offset + count // block * size]
    if len(raw) < count // block * size:
        raise ModelMismatch("the model file is cut off within its weights")
    if kind == GGMLQuantizationType.F32:
        return raw.view(np.float32).reshape(tensor.shape)
    if kind == GGMLQuantizationType.F16:
        return raw.view(np.float16).reshape(tensor.shape)
    return raw.reshape(*tensor.shape[:-1], tensor.shape[-1] // block * size)


def _as_transformers(stem: str, values: Any, config: Any) -> Any:
    """Undo what llama.cpp's converter did: Gemma's norms are stored plus one, Llama's q and k interleaved."""
    if config.model_type == "gemma3_text" and stem.endswith("norm"):
        return values - 1
    if config.model_type == "llama" and stem.endswith(("q_proj", "k_proj")):
        heads = config.num_attention_heads if stem.endswith("q_proj") else config.num_key_value_heads
        pairs = values.reshape(heads, values.shape[0] // heads // 2, 2, values.shape[1])
        return pairs.swapaxes(1, 2).reshape(values.shape)
    return values


def _shape(metadata: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Return what the configurations of both architectures take from the file, under the names of transformers."""
    keys = {
        "hidden_size": "embedding_length",
        "intermediate_size": "feed_forward_length",
        "num_hidden_layers": "block_count",
        "num_attention_heads": "attention.head_count",
        "num_key_value_heads": "attention.head_count_kv",
        "max_position_embeddings": "context_length",
        "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    }
    return {
        **{name: metadata[f"{prefix}.{key}"] for name, key in keys.items()},
        **{f"{name}_token_id": metadata[f"tokenizer.ggml.{key}_token_id"] for name, key in _SPECIAL.items()},
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        "dtype": "bfloat16",
    }


def _gemma3(metadata: dict[str, Any]) -> Any:
    from transformers import Gemma3TextConfig

    return Gemma3TextConfig(
        architectures=["Gemma3ForCausalLM"],
        head_dim=metadata["gemma3.attention.key_length"],
        query_pre_attn_scalar=metadata["gemma3.attention.key_length"],
        sliding_window=metadata["gemma3.attention.sliding_window"],
        rope_parameters={
            # The file holds the base of the global layers; the local ones use 10,000 in every Gemma 3.
            "full_attention": {"rope_type": "default", "rope_theta": metadata["gemma3.rope.freq_base"]},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
        **_shape(metadata, "gemma3"),
    )


def _llama(metadata: dict[str, Any]) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        rope_parameters={"rope_type": "default", "rope_theta": metadata["llama.rope.freq_base"]},
        **_shape(metadata, "llama"),
    )


_CONFIGS = {"gemma3": _gemma3, "llama": _llama}
