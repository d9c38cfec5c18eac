"""A base model in memory, perhaps with an adapter, and its streaming generation.

torch, transformers and peft are imported inside functions: listings and help never pay for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock, Thread
from typing import Any, ClassVar

from camelbell_core.errors import CamelBellError
from camelbell_core.prompts import Prompt, layout_for
from camelbell_core.registry import Registry
from camelbell_core.roles import BaseModel, Engine, GgufBase, LanguageModel, TrainableBase

_WINDOW = 4096  # tokens; a small model says nothing sensible beyond, whatever its configuration allows


class TorchModel(LanguageModel):
    """A transformers model that continues prompts; several may share one base, each with an adapter of its own."""

    top_p = 0.9
    seed: int | None = None

    def __init__(self, base: TrainableBase, adapter: Path | None = None, slot: str = "default") -> None:
        self.name = base.name
        self.tokenizer = base.tokenizer
        self.layout = layout_for(base.tokenizer)
        self.model = base.model.eval()
        limit = getattr(base.model.config, "max_position_embeddings", None) or _WINDOW
        self.window = min(limit, _WINDOW)
        # The end of a turn by its template, and what else the model ends with when nobody tuned it.
        own = getattr(base.model.generation_config, "eos_token_id", None)
        self.end_ids = sorted({*self.layout.end_ids, *(own if isinstance(own, list) else [own])} - {None})
        self._slot = slot if adapter is not None else ""
        self._alone = Lock()
        if adapter is not None:
            from camelbell_core.adapters import attach

            self.model = attach(base, self.layout, adapter, slot)
            self.adapter = str(adapter)

    @classmethod
    def several(cls, base: TrainableBase, adapters: Sequence[Path | None]) -> list[TorchModel]:
        """Return a model for each adapter, all on one base in memory; they speak in turns."""
        models: list[TorchModel] = []
        for number, adapter in enumerate(adapters):
            carrier = models[-1].model if models else base.model
            models.append(cls(replace(base, model=carrier), adapter, f"adapter{number}"))
        for model in models:
            model.model, model._alone = models[-1].model, models[0]._alone
        return models

    @contextmanager
    def _switched_on(self) -> Iterator[None]:
        """Hold the base with this model's adapter, and no other, at work."""
        with self._alone:
            if not hasattr(self.model, "peft_config"):
                yield
            elif self._slot:
                if self.model.active_adapter != self._slot:
                    self.model.set_adapter(self._slot)
                yield
            else:
                with self.model.disable_adapter():
                    yield

    def stream(
        self, prompt: Prompt, max_tokens: int, temperature: float = 0.0, stop: Callable[[], bool] | None = None
    ) -> Iterator[str]:
        """Yield the reply in pieces of whole characters; greedy at temperature 0."""
        import torch
        from transformers import StoppingCriteriaList, TextIteratorStreamer

        ids = self.layout.fit(prompt, self.window - max_tokens)
        streamer = TextIteratorStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)
        left = False

        def should_stop(input_ids: Any, scores: Any, **more: Any) -> Any:
            ended = left or (stop is not None and stop())
            return torch.full((input_ids.shape[0],), ended, dtype=torch.bool, device=input_ids.device)

        options: dict[str, Any] = {"do_sample": False, "top_k": None, "top_p": None}
        if temperature > 0:
            options = {"do_sample": True, "temperature": temperature, "top_p": self.top_p}
        failures: list[BaseException] = []

        def work() -> None:
            try:
                input_ids = torch.tensor([ids], device=self.model.device)
                with torch.inference_mode(), self._switched_on(), torch.random.fork_rng(enabled=self.seed is not None):
                    if self.seed is not None:
                        torch.manual_seed(self.seed)
                    self.model.generate(
                        input_ids,
                        attention_mask=torch.ones_like(input_ids),
                        max_new_tokens=max_tokens,
                        eos_token_id=self.end_ids,
                        pad_token_id=self.tokenizer.pad_token_id or self.tokenizer.eos_token_id,
                        stopping_criteria=StoppingCriteriaList([should_stop]),
                        streamer=streamer,
                        **options,
                    )
            except BaseException as error:
                failures.append(error)
                streamer.end()

        thread = Thread(target=work, daemon=True)
        thread.start()
        try:
            # The last piece ends within a character where max_tokens cut it.
            yield from (whole for piece in streamer if (whole := piece.rstrip("\ufffd")))
        finally:
            left = True
            thread.join()
        if failures:
            raise failures[0]


def best_dtype(device: str) -> Any:
    """Return bfloat16 where the processor or GPU computes in it, else float32."""
    import torch

    if device == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    names = ("avx512_bf16", "amx_bf16", "bf16")  # the last is ARM's
    fast = any(capabilities.get(name) for name in names) or getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
    return torch.bfloat16 if fast else torch.float32


def best_device() -> str:
    """Return where a model runs: cuda, mps or cpu."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def open_pretrained(
    name: str, folder: str | Path, fingerprint: str, license: str = "", quantize: str = ""
) -> TrainableBase:
    """Open a model folder or hub id with transformers, in the fastest exact type of this machine.

    ``quantize`` is 8bit, 4bit (NF4) or "". A folder that lacks weights of the model, or has others, is refused.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    device = best_device()
    dtype = best_dtype(device)
    options = _quantized(quantize, dtype, device) if quantize else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
        model, found = AutoModelForCausalLM.from_pretrained(
            str(folder), dtype=dtype, output_loading_info=True, **options
        )
    except Exception as error:  # the libraries that read weights and tokenizers raise types of their own
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CamelBellError(
            f"the base model {name!r} cannot be opened: {first}", "check the path or hub id"
        ) from error
    if missing := sorted(found["missing_keys"]):
        raise CamelBellError(
            f"the base model {name!r} lacks the weights {missing[0]} and {len(missing) - 1} more",
            "fetch it anew, or check its config.json",
        )
    if strange := sorted(found["unexpected_keys"]):
        raise CamelBellError(
            f"the base model {name!r} has the weights {strange[0]} and {len(strange) - 1} more, which its architecture "
            "does not know",
            "fetch it anew, or check its config.json",
        )
    if not quantize:
        model.to(device)
    model.requires_grad_(False)
    return TrainableBase(name=name, model=model, tokenizer=tokenizer, fingerprint=fingerprint, license=license)


def _quantized(quantize: str, dtype: Any, device: str) -> dict[str, Any]:
    """Return what transformers needs to open a model in bitsandbytes' 8 bits or 4 bits (NF4)."""
    from importlib.util import find_spec

    if find_spec("bitsandbytes") is None:
        raise CamelBellError(
            f"quantize: {quantize} needs bitsandbytes", "pip install 'camelbell[quantize]', or leave the key out"
        )
    if device == "mps":
        raise CamelBellError(f"quantize: {quantize} does not run on this GPU (mps)", "leave the key out")
    from transformers import BitsAndBytesConfig

    if quantize == "8bit":
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    return {"quantization_config": config, "device_map": {"": device}}


TRANSFORMERS = "transformers"


@dataclass(kw_only=True)
class ChosenBase(BaseModel):
    """A base with the engine that runs it: talked with there, trained with transformers."""

    name: ClassVar[str] = "chosen"
    loader: BaseModel
    base: str  # as its loader knows it
    engine: Engine | None

    def accepts(self, base: str) -> bool:
        """Tell whether the base's loader knows the name."""
        return self.loader.accepts(self.base)

    def slug(self, base: str) -> str:
        """Return the folder name of the base's loader: adapters fit every engine."""
        return self.loader.slug(self.base)

    def load(self, base: str, adapter: Path | None = None) -> LanguageModel:
        """Open the base for talking, with the engine if there is one."""
        return self.load_several(base, [adapter])[0]

    def load_several(self, base: str, adapters: Sequence[Path | None]) -> list[LanguageModel]:
        """Open the base for several characters, one adapter or none each; an engine keeps it in memory once."""
        if self.engine is None:
            return self.loader.load_several(self.base, adapters)
        file = self.loader.gguf(self.base)
        if file is None:
            raise CamelBellError(
                f"the engine {self.engine.name!r} cannot run the base {self.base!r}: it comes as no GGUF file",
                f"leave the engine to transformers: --base {self.base}",
            )
        return self.engine.load_several(file, adapters)

    def profile(self, base: str) -> str:
        """Return the preset that fits the base."""
        return self.loader.profile(self.base)

    def gguf(self, base: str) -> GgufBase | None:
        """Return the base as a GGUF file, or None where it does not come as one."""
        return self.loader.gguf(self.base)

    def files(self, base: str) -> tuple[Path, str]:
        """Return the folder of transformers of the base's loader, and its fingerprint."""
        return self.loader.files(self.base)

    def load_trainable(self, base: str) -> TrainableBase:
        """Open the base for training, with transformers."""
        return self.loader.load_trainable(self.base)


def loader_for(registry: Registry, base: str, quantize: str = "") -> BaseModel:
    """Return the loader that knows a base model's name, with the engine that runs it.

    ``llamacpp:embedded`` and ``transformers:embedded`` name the engine; else the first that suits this machine takes
    the bases that come as GGUF files. ``quantize`` is of transformers: with it no engine is chosen.
    """
    engines = registry.offers("engines")
    wanted, _, plain = base.partition(":")
    named = plain != "" and wanted in (TRANSFORMERS, *engines)
    loader = _loader(registry, plain if named else base, quantize)
    if named:
        engine = None if wanted == TRANSFORMERS else registry.build(Engine, "engines", wanted)
        return ChosenBase(loader=loader, base=plain, engine=engine)
    if not quantize and type(loader).gguf is not BaseModel.gguf:
        for name in engines:
            engine = registry.build(Engine, "engines", name)
            if engine.suits():
                return ChosenBase(loader=loader, base=base, engine=engine)
    return loader


def _loader(registry: Registry, base: str, quantize: str) -> BaseModel:
    for name in registry.offers("base_models"):
        loader = registry.build(BaseModel, "base_models", name, {"quantize": quantize} if quantize else None)
        if loader.accepts(base):
            return loader
    raise CamelBellError(
        f"no base model is called {base!r}",
        f"known: {', '.join(registry.offers('base_models'))}, the path of a model folder, or a hub id like org/name",
    )
