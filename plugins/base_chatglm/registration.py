"""Tells transformers of ChatGLM as soon as somebody imports transformers, and not before.

The command line imports every plugin to list it, and must not pay for torch and transformers then.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

# Each of our modules registers its classes when it is imported.
_STEPS = {
    "transformers.models.auto.configuration_auto": "configuration",
    "transformers.models.auto.modeling_auto": "modeling",
    "transformers.models.auto.tokenization_auto": "tokenization",
}


def _register(step: str) -> None:
    # One of ours that is just being imported, and made transformers come, registers at its own end.
    import_module(f"{__package__}.{step}")


def register_when_imported() -> None:
    """Register what of transformers is there already, and the rest when it comes."""
    waiting = {name: step for name, step in _STEPS.items() if name not in sys.modules}
    for name, step in _STEPS.items():
        if name not in waiting:
            _register(step)
    if waiting and not any(isinstance(finder, _Waiting) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Waiting(waiting))


class _Waiting(MetaPathFinder):
    """Finds nothing itself; modules that it waits for get a loader that registers after them."""

    def __init__(self, waiting: dict[str, str]) -> None:
        self.waiting = waiting

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        step = self.waiting.pop(fullname, None)
        spec = find_spec(fullname) if step else None  # asks the other finders: this one waits no more
        if spec is not None and spec.loader is not None and step is not None:
            spec.loader = _Then(spec.loader, step)
        return spec


class _Then(Loader):
    """Loads a module as its own loader does, then registers."""

    def __init__(self, loader: Loader, step: str) -> None:
        self.loader, self.step = loader, step

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
            module.__loader__ = self.loader
        _register(self.step)
