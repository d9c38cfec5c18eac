"""The engine ``llamacpp``: runs bases that come as GGUF files by llama.cpp, in this process, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from camelbell_core import hookimpl
from camelbell_core.roles import Engine, GgufBase, LanguageModel


@dataclass(kw_only=True)
class LlamaCpp(Engine):
    """llama.cpp in this process (xllamacpp): fast on a processor, the adapters as GGUF LoRA files.

    ``parallel`` conversations are continued at a time, in ``context`` tokens each; 0 ``threads`` are as many as there
    are processors. A base is loaded once in a process, whatever number of characters it speaks for.
    """

    name: ClassVar[str] = "llamacpp"
    parallel: int = 1
    context: int = 4096
    threads: int = 0

    def suits(self) -> bool:
        """Tell whether this machine has no CUDA device and llama.cpp is installed."""
        from importlib.util import find_spec

        from camelbell_plugins.base_llamacpp.devices import has_cuda

        return find_spec("xllamacpp") is not None and not has_cuda()

    def load_several(self, base: GgufBase, adapters: Sequence[Path | None]) -> list[LanguageModel]:
        """Open the base once, with all the adapters; it is read in the background, and ready when the first one asks."""
        from camelbell_plugins.base_llamacpp.model import LlamaModel
        from camelbell_plugins.base_llamacpp.server import shared

        server = shared(base.file, self.parallel, self.context, self.threads)
        models: list[LanguageModel] = [LlamaModel(base, server, adapter) for adapter in adapters]
        server.warm()
        return models


@hookimpl
def register_engines() -> list[type[Engine]]:
    """Offer llama.cpp."""
    return [LlamaCpp]


_LIMITS = {"as it is": 0.95, "float16": 0.99}  # what the share of equal first tokens has to reach


@hookimpl
def register_commands(cli: Any) -> None:
    """Add ``camelbell agree``."""
    import click

    from camelbell_core.cli import with_places

    @cli.command("agree")  # type: ignore[untyped-decorator]
    @click.argument("name")
    @click.option("--base", default="", help="Base model (default: the bundle's).")
    @click.option("--adapter", type=click.Path(path_type=Path, file_okay=False), help="Default: as in a chat.")
    @click.option("--no-adapter", is_flag=True, help="Compare the bare base.")
    @click.option("-n", "count", type=click.IntRange(min=1), default=200, show_default=True, help="How many prompts.")
    @click.option("--half/--no-half", default=True, show_default=True, help="Also without quantisation, in float16.")
    @with_places
    def agree(
        name: str, base: str, adapter: Path | None, no_adapter: bool, count: int, half: bool,
        workspace: Path | None, characters: list[Path],
    ) -> None:  # fmt: skip
        """Check that llama.cpp says what transformers says: the first tokens after prompts of NAME."""
        from tempfile import TemporaryDirectory

        from camelbell_core.cli import open_named_run
        from camelbell_core.errors import CamelBellError
        from camelbell_core.model import TorchModel, loader_for
        from camelbell_core.pipeline import find_adapter
        from camelbell_plugins.base_llamacpp.agree import compare, prompts_of, reference
        from camelbell_plugins.base_llamacpp.model import LlamaModel

        run = open_named_run(name, workspace, characters)
        chosen = (base or run.character.config.base).removeprefix("llamacpp:").removeprefix("transformers:")
        loader = loader_for(run.registry, f"llamacpp:{chosen}")
        file = loader.gguf(chosen)
        if file is None:
            raise CamelBellError(f"the base {chosen!r} comes as no GGUF file", "only such bases are run by llama.cpp")
        folder = None if no_adapter else adapter or find_adapter(run, chosen)
        prompts = prompts_of(run, count)
        opened = TorchModel(loader.load_trainable(chosen), folder)
        opened.model.float()  # so that only the engine's own rounding is measured
        with run.progress("transformers") as tick:
            expected = []
            for row in reference(opened, prompts):
                expected.append(row)
                tick(len(expected), len(prompts))
        del opened
        missed = []
        with TemporaryDirectory() as place:
            ways = {"as it is": file}
            if half and file.write_half is not None:
                file.write_half(Path(place) / "half.gguf")
                ways["float16"] = replace(file, file=Path(place) / "half.gguf")
            for label, way in ways.items():
                with run.progress(label) as tick:
                    (model,) = LlamaCpp().load_several(way, [folder])
                    assert isinstance(model, LlamaModel)
                    found = compare(model, prompts, expected, tick)
                click.echo(
                    f"{label}: the same ids for {found.ids} of {found.n} prompts, the same first token after "
                    f"{found.first} ({found.share:.3f}, at least {_LIMITS[label]:.2f} wanted); "
                    f"{found.close} of the others are as good as even"
                )
                missed += [label] if found.ids < found.n or found.share < _LIMITS[label] else []
        if missed:
            raise CamelBellError(f"llama.cpp does not agree with transformers: {', '.join(missed)}")
