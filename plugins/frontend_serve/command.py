"""The ``serve`` command: which characters, on which base, at which address."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from camelbell_core.errors import CamelBellError
from camelbell_core.prompts import build_prompt, persona_of

if TYPE_CHECKING:
    from camelbell_core.pipeline import Run
    from camelbell_core.roles import LanguageModel
    from camelbell_core.session import Session


def add(cli: Any) -> None:
    """Add the command to the command line."""
    from camelbell_core.cli import with_places, with_speaker

    @cli.command("serve")  # type: ignore[untyped-decorator]
    @click.argument("names", nargs=-1, required=True, metavar="NAME[@TIME]...")
    @click.option("--base", default="", help="Base model of all of them (default: each bundle's).")
    @click.option("--host", default="127.0.0.1", show_default=True, help="An address others can call needs a token.")
    @click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
    @click.option("--room", type=click.IntRange(min=0), default=64, show_default=True, help="How many may wait.")
    @click.option("--max-tokens", type=click.IntRange(min=1), default=512, show_default=True, help="Longest reply.")
    @click.option("--patience", type=click.FloatRange(min=0.1), default=20.0, show_default=True,
                  help="Seconds that a client may take to send its request, or to read.")  # fmt: skip
    @click.option("--access-log", is_flag=True, help="Write a line for each request to standard error.")
    @click.option("--engine", type=click.Choice(["local", "vllm"]), default="local", show_default=True,
                  help="vllm: on a GPU, by vLLM, which is started with the adapters.")  # fmt: skip
    @click.option("--engine-url", default="", help="A vLLM that runs already, such as http://127.0.0.1:8100.")
    @click.option("--engine-args", default="", help="More arguments for vLLM, in one text.")
    @with_speaker
    @with_places
    def serve(
        names: tuple[str, ...],
        base: str,
        host: str,
        port: int,
        room: int,
        max_tokens: int,
        patience: float,
        access_log: bool,
        engine: str,
        engine_url: str,
        engine_args: str,
        adapter: Path | None,
        no_adapter: bool,
        no_memory: bool,
        no_guard: bool,
        workspace: Path | None,
        characters: tuple[Path, ...],
    ) -> None:
        """Serve characters over HTTP: an OpenAI-compatible API, and a page to talk to them.

        NAME@TIME, such as harry_potter@3-22, is listed as a model of its own. The environment variable
        CAMELBELL_TOKEN sets the token that clients must send.
        """
        from camelbell_core.cli import open_named_run
        from camelbell_core.session import open_session
        from camelbell_plugins.frontend_serve import Serve

        known = list(dict.fromkeys(name.partition("@")[0] for name in names))
        if len(known) > 1 and (workspace or adapter):
            raise CamelBellError(
                "--workspace and --adapter are one character's, and several are served", "serve one, or leave them out"
            )
        runs = [open_named_run(name, workspace, characters) for name in known]
        for name in names:
            who, marked, when = name.partition("@")
            if marked:
                runs[known.index(who)].character.canon.point(when)
        door = Serve(host=host, port=port, room=room, most=max_tokens, patience=patience)
        with ExitStack() as held:
            made = held.enter_context(door.bound())
            if engine == "vllm" or engine_url:
                models = held.enter_context(vllm_models(runs, base, adapter, no_adapter, engine_url, engine_args))
            else:
                models = open_models(runs, base, adapter, no_adapter)
            sessions = [
                open_session(run.character, run.registry, model, memory=not no_memory, guard=not no_guard)
                for run, model in zip(runs, models, strict=True)
            ]
            for session in sessions:
                say_something(session)
            door.serve(sessions, made, names, access_log)


def say_something(session: Session) -> None:
    """Let a model say one token: what is wrong with base or adapter is known before anybody calls."""
    language = session.character.languages[0]
    persona = session.personas.get(language, persona_of(session.character, language))
    for _ in session.model.stream(build_prompt(persona, language, "?"), 1):
        pass


def open_models(runs: Sequence[Run], base: str, adapter: Path | None, no_adapter: bool) -> list[LanguageModel]:
    """Return the model of each character; those on one base share it in memory."""
    from camelbell_core.model import ChosenBase, loader_for

    groups: dict[tuple[str, type], list[int]] = {}
    for number, run in enumerate(runs):
        chosen = base or run.character.config.base
        loader = loader_for(run.registry, chosen)
        kind = type(loader.loader if isinstance(loader, ChosenBase) else loader)  # a bundle's plugin may bring its own
        groups.setdefault((chosen, kind), []).append(number)
    models: dict[int, LanguageModel] = {}
    for (chosen, _), numbers in groups.items():
        folders = [_adapter(runs[number], chosen, adapter, no_adapter) for number in numbers]
        loader = loader_for(runs[numbers[0]].registry, chosen)
        models.update(zip(numbers, loader.load_several(chosen, folders), strict=True))
    return [models[number] for number in range(len(runs))]


@contextmanager
def vllm_models(
    runs: Sequence[Run], base: str, adapter: Path | None, no_adapter: bool, url: str, more: str
) -> Iterator[list[LanguageModel]]:
    """Start vLLM with the base and the adapters of all characters, and yield the model of each."""
    from camelbell_core.model import loader_for
    from camelbell_plugins.frontend_serve import vllm

    bases = list(dict.fromkeys(base or run.character.config.base for run in runs))
    if len(bases) > 1:
        raise CamelBellError(f"vLLM holds one base, and these characters have {', '.join(bases)}", "name one: --base")
    names = [run.character.name for run in runs]
    found = {run.character.name: _adapter(run, bases[0], adapter, no_adapter) for run in runs}
    adapters = {name: folder.resolve() for name, folder in found.items() if folder}
    folder, fingerprint = loader_for(runs[0].registry, bases[0]).files(bases[0])
    layout = vllm.open_layout(bases[0], folder, fingerprint, adapters)
    port = vllm.free_port()
    try:
        arguments = vllm.command(folder, adapters, port, shlex.split(more))
    except ValueError as error:
        raise CamelBellError(f"--engine-args: {str(error).lower()}", "close what you quote") from error
    if not url:
        click.echo(f"+ {shlex.join(arguments)}", err=True)
    with nullcontext(url.rstrip("/")) if url else vllm.running(arguments, port) as at:
        yield [
            vllm.VllmModel(at, bases[0], layout, vllm.served_name(name), str(adapters[name]))
            if name in adapters
            else vllm.VllmModel(at, bases[0], layout)
            for name in names
        ]


def _adapter(run: Run, base: str, chosen: Path | None, none: bool) -> Path | None:
    """Return a character's adapter folder; say so where there is none."""
    from camelbell_core.pipeline import find_adapter

    folder = None if none else chosen or find_adapter(run, base)
    if folder is None and not none:
        name = run.character.name
        click.echo(f"note: {name} has no adapter for the base {base!r}; train one: camelbell run {name}", err=True)
    return folder
