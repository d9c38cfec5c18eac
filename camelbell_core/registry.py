"""Which parts exist: plugins are found, loaded one by one, and a part is picked by its name."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from camelbell_core import hookspecs
from camelbell_core.errors import CamelBellError
from camelbell_core.records import Seed
from camelbell_core.roles import (
    AnswerTeacher,
    BaseModel,
    ChatFrontend,
    Engine,
    Filter,
    Memory,
    Part,
    QuestionGenerator,
    Trainer,
)

if TYPE_CHECKING:
    from camelbell_core.character import BundleRef, Character, PartRef
    from camelbell_core.errors import Problem

P = TypeVar("P", bound=Part)
BUILT_IN = "camelbell_plugins"

ROLES: dict[str, type[Part]] = {
    "question_generators": QuestionGenerator,
    "answer_teachers": AnswerTeacher,
    "filters": Filter,
    "trainers": Trainer,
    "chat_frontends": ChatFrontend,
    "base_models": BaseModel,
    "engines": Engine,
    "memories": Memory,
}
# The key of character.yaml that chooses parts of a role.
YAML_KEYS = {
    "questions": "question_generators",
    "answers": "answer_teachers",
    "memory": "memories",
    "filters": "filters",
    "guard": "filters",
    "trainer": "trainers",
    "frontend": "chat_frontends",
}


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """A plugin as listings show it; ``error`` is empty when it loaded."""

    name: str
    source: str
    version: str = ""
    hooks: tuple[str, ...] = ()
    error: str = ""


@dataclass
class Registry:
    """A plugin manager of its own, what was loaded into it, and the parts on offer."""

    manager: pluggy.PluginManager
    plugins: list[PluginInfo] = field(default_factory=list)

    def offers(self, role: str) -> dict[str, type[Part]]:
        """Return the parts of a role by name; two with one name are an error that names both owners."""
        found: dict[str, tuple[type[Part], str]] = {}
        hook = getattr(self.manager.hook, f"register_{role}")
        for implementation in hook.get_hookimpls():
            owner = implementation.plugin_name
            for part in implementation.function() or ():
                if part.name in found and found[part.name][0] is not part:
                    raise CamelBellError(
                        f"two {role.replace('_', ' ')} are called {part.name!r}: "
                        f"one of {found[part.name][1]}, one of {owner}",
                        "uninstall one, or leave it out with CAMELBELL_PLUGINS",
                    )
                found[part.name] = (part, owner)
        return {name: part for name, (part, _) in sorted(found.items())}

    def failed(self, owner: str, text: str, error: BaseException) -> None:
        """Note that a plugin broke; fatal when CAMELBELL_STRICT=1."""
        if os.environ.get("CAMELBELL_STRICT") == "1":
            raise CamelBellError(f"plugin {owner!r} does not work: {text}") from error
        for i, info in enumerate(self.plugins):
            if info.name == owner:
                self.plugins[i] = replace(info, error=text)

    def pick(self, role: str, name: str) -> type[Part]:
        """Return the part of that name."""
        offers = self.offers(role)
        if name not in offers:
            kind = role.replace("_", " ")
            one = "memory" if role == "memories" else kind.removesuffix("s")
            broken = "".join(f"; plugin {info.name!r} is skipped: {info.error}" for info in self.plugins if info.error)
            raise CamelBellError(
                f"there is no {one} {name!r}{_suggest(name, offers)}{broken}", f"known {kind}: {', '.join(offers)}"
            )
        return offers[name]

    def build(self, kind: type[P], role: str, ref: PartRef, more: Mapping[str, Any] | None = None) -> P:
        """Return a part made with the options that the YAML gives it."""
        from pydantic import TypeAdapter, ValidationError

        from camelbell_core.character import part_name
        from camelbell_core.checked_yaml import explain

        name, options = part_name(ref)
        part = self.pick(role, name)
        options = {**options, **(more or {})}
        try:
            made = TypeAdapter(part).validate_python(options)
        except ValidationError as error:
            mistakes = "; ".join(
                f"{'.'.join(map(str, place)) or name}: {what}" for place, what in explain(error, options, part)
            )
            raise CamelBellError(f"{role.replace('_', ' ')}: {name}: {mistakes}") from error
        except CamelBellError:
            raise
        except Exception as error:
            raise CamelBellError(f"{role.replace('_', ' ')}: {name} cannot be made: {_one_line(error)}") from error
        assert isinstance(made, kind)
        return made

    def check(self, character: Character) -> list[Problem]:
        """Return what is wrong with the parts that a bundle chooses and with their options.

        Every hook is called here, so that a plugin that breaks is known before any work.
        """
        for role in ROLES:
            self.offers(role)
        for language in character.languages:
            self.manager.hook.build_persona(character=character, language=language)
        problems = []
        for key, role in YAML_KEYS.items():
            chosen = getattr(character.config, key)
            for number, ref in enumerate(chosen if isinstance(chosen, list) else [chosen]):
                place: tuple[int | str, ...] = (key, number) if isinstance(chosen, list) else (key,)
                try:
                    self.build(ROLES[role], role, ref)
                except (CamelBellError, ValueError) as error:
                    what = error.message if isinstance(error, CamelBellError) else str(error)
                    problems.append(character.document.problem(place, what))
        for name, preset in character.config.presets.items():
            try:
                self.build(Trainer, "trainers", character.config.trainer, preset.trainer)
            except CamelBellError as error:
                problems.append(character.document.problem(("presets", name, "trainer"), error.message))
        return problems


def build_registry(bundle: BundleRef | None = None) -> Registry:
    """Return a fresh registry with the built-in plugins, the installed ones, and one bundle's own."""
    manager = pluggy.PluginManager("camelbell")
    manager.add_hookspecs(hookspecs)
    registry = Registry(manager)
    wanted = {name.strip() for name in os.environ.get("CAMELBELL_PLUGINS", "").split(",") if name.strip()}
    for name in _built_in_names():
        _load(registry, name, "built-in", "", partial(importlib.import_module, f"{BUILT_IN}.{name}"))
    for entry in sorted(entry_points(group="camelbell"), key=lambda e: e.name):
        if wanted and entry.name not in wanted:
            continue
        source = f"{entry.dist.name}" if entry.dist else "entry point"
        _load(registry, entry.name, source, entry.dist.version if entry.dist else "", entry.load)
    if bundle is not None and bundle.plugin is not None:
        file = bundle.plugin
        _load(registry, f"bundle-{bundle.name}", str(file), "", lambda: _import_file(bundle.name, file))
    return registry


def _load(registry: Registry, name: str, source: str, version: str, load: Callable[[], Any]) -> None:
    """Load one plugin; one that fails is reported and skipped, or fatal when CAMELBELL_STRICT=1."""
    manager = registry.manager
    try:
        hooks = _guarded_hooks(registry, name, load())
        try:
            manager.register(hooks, name)
        except Exception:
            if manager.get_plugin(name) is hooks:  # else the name is another plugin's
                manager.unregister(hooks)
            raise
    except (Exception, SystemExit) as error:
        text = _one_line(error)
        if os.environ.get("CAMELBELL_STRICT") == "1":
            raise CamelBellError(f"plugin {name!r} ({f'{source} {version}'.strip()}) does not load: {text}") from error
        registry.plugins.append(PluginInfo(name, source, version, error=text))
        return
    registry.plugins.append(PluginInfo(name, source, version, tuple(sorted(vars(hooks)))))


class _Hooks:
    """The hooks of one plugin, as pluggy registers them."""


def _guarded_hooks(registry: Registry, name: str, plugin: Any) -> _Hooks:
    """Return a plugin's hooks, each so that a break is reported and gives nothing; an unknown hook is refused."""
    known = [name for name, spec in vars(hookspecs).items() if hasattr(spec, "camelbell_spec")]
    hooks = _Hooks()
    for place in dir(plugin):
        options = registry.manager.parse_hookimpl_opts(plugin, place)
        if options is None:
            continue
        hook = options.get("specname") or place
        if hook not in known:
            raise CamelBellError(f"there is no hook {hook!r}{_suggest(hook, known)}")
        if options.get("wrapper") or options.get("hookwrapper"):
            raise CamelBellError(f"{hook}: hooks have no wrappers here")
        setattr(hooks, hook, _guarded(registry, name, hook, getattr(plugin, place)))
    return hooks


def _guarded(registry: Registry, owner: str, hook: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def guarded(*arguments: Any) -> Any:
        try:
            return _promised(hook, function(*arguments))
        except (Exception, SystemExit) as error:
            registry.failed(owner, f"{hook}: {_one_line(error)}", error)
            return None

    return guarded


def _promised(hook: str, result: Any) -> Any:
    """Return what a plugin's hook gave, lists as lists, or raise if it is not what the hook promises."""
    if hook == "register_commands" or (result is None and hook in ("load_seeds", "build_persona")):
        return None
    if hook == "build_persona":
        if not isinstance(result, str):
            raise TypeError(f"{result!r} is not text")
        return result
    found = list(result)
    for one in found:
        if hook == "load_seeds":
            if not isinstance(one, Seed):
                raise TypeError(f"{one!r} is not a Seed")
            continue
        role = ROLES[hook.removeprefix("register_")]
        if not (isinstance(one, type) and issubclass(one, role) and isinstance(getattr(one, "name", None), str)):
            raise TypeError(f"{one!r} is not a {role.__name__} class with a name")
    return found


def _one_line(error: BaseException) -> str:
    kind = "" if isinstance(error, CamelBellError) else f"{type(error).__name__}: "
    return " ".join(f"{kind}{error}".split())


def _suggest(word: str, known: Iterable[str]) -> str:
    from camelbell_core.checked_yaml import suggest  # imports pydantic, which the help must not pay for

    return suggest(word, known)


def _built_in_names() -> list[str]:
    spec = importlib.util.find_spec(BUILT_IN)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return sorted(module.name for module in pkgutil.iter_modules(folders))


def _import_file(bundle: str, file: Path) -> ModuleType:
    name = f"camelbell_bundle_{bundle.replace('-', '_')}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot import {file}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        # Not exec_module: it would leave a __pycache__ in the bundle.
        exec(compile(file.read_bytes(), str(file), "exec"), vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    return module
