"""CamelBell: character chatbots from a folder, truthful to their canon."""

from camelbell_core.hookspecs import hookimpl

__version__ = "0.1.0"
__all__ = ["__version__", "hookimpl"]
