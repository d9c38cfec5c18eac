"""llama.cpp's server inside this process: one file loaded once, several adapters, several conversations.

xllamacpp gives Python the server's queue and slots. Each slot keeps the state of its last prompt, so that what a
prompt has in common with the one before is not read again. The server listens, too; nobody is to come in by that
door, so it stands in a private folder and is removed, or demands a key that nobody knows.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from threading import Condition, Semaphore, Thread
from typing import Any
from weakref import WeakSet, WeakValueDictionary

from camelbell_core.errors import CamelBellError

_CACHE = 256  # MiB of states of other conversations that are kept
_SPINS = "1000"  # some microseconds
_SHORTEST = 0.05  # seconds between two looks at whether a waiting request is still wanted

Request = dict[str, Any]


class Server:
    """One GGUF file in memory, from the first request on until nobody holds it any more."""

    def __init__(self, file: Path, parallel: int, context: int, threads: int) -> None:
        self.file = file
        self.parallel = parallel
        self.context = context
        self._threads = threads or _processors()
        self._adapters: list[Path] = []
        self._turn = Semaphore(parallel)
        self._changed = Condition()
        self._busy = 0  # requests that llama.cpp works on
        self._native: Any = None
        self._loaded = 0  # adapters that the native server knows
        self._starter: Thread | None = None
        _living.add(self)

    def use(self, adapter: Path) -> int:
        """Return the number by which requests name an adapter; one that is new is loaded before the next request."""
        with self._changed:
            if adapter not in self._adapters:
                self._adapters.append(adapter)
            return self._adapters.index(adapter)

    def warm(self) -> None:
        """Begin to load in the background; what goes wrong is told by the first request."""
        with self._changed:
            if self._native is None and self._starter is None:
                self._starter = Thread(target=self._try_to_start, daemon=True)
                self._starter.start()

    def complete(self, request: Request, adapter: int | None, stop: Callable[[], bool]) -> Iterator[dict[str, Any]]:
        """Yield what llama.cpp answers to a completion request as it comes, until told to ``stop``.

        Leaving the iterator ends the generation. A request beyond ``parallel`` waits for its turn.
        """
        while not self._turn.acquire(timeout=_SHORTEST):
            if stop():
                return
        try:
            with self._running() as native:
                scales = [{"id": i, "scale": float(i == adapter)} for i in range(self._loaded)]
                yield from _streamed(native, {**request, "lora": scales}, stop)
        finally:
            self._turn.release()

    def close(self) -> None:
        """Stop the native server; a later request starts it again."""
        with self._changed:
            starter = self._starter
        if starter:
            starter.join()
        with self._changed:
            self._native = None

    @contextmanager
    def _running(self) -> Iterator[Any]:
        """Hold the native server, with all adapters loaded; wait for those who use it before it is started anew."""
        starter = self._starter
        if starter:
            starter.join()
        with self._changed:
            while self._native is None or self._loaded < len(self._adapters):
                if self._busy:
                    self._changed.wait()
                else:
                    self._start()
            self._busy += 1
            native = self._native
        try:
            yield native
        finally:
            del native
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    def _try_to_start(self) -> None:
        try:
            with self._changed:
                if self._native is None:
                    self._start()
        except CamelBellError:
            pass  # the first request tries again, and tells
        finally:
            self._starter = None

    def _start(self) -> None:
        """Start the native server with the adapters known now."""
        self._native = None  # the old one goes first: two do not fit into a small memory
        adapters = list(self._adapters)
        try:
            self._native = _native(self.file, adapters, self.parallel, self.context, self._threads)
        except RuntimeError as error:
            names = ", ".join(map(str, (self.file, *adapters)))
            raise CamelBellError(
                f"llama.cpp cannot load {names}",
                "fetch or train them anew, or leave the engine: --base transformers:...",
            ) from error
        self._loaded = len(adapters)


_servers: WeakValueDictionary[tuple[Path, int, int, int], Server] = WeakValueDictionary()
_living: WeakSet[Server] = WeakSet()


def shared(file: Path, parallel: int, context: int, threads: int) -> Server:
    """Return the process's server of a file; it lives as long as a model holds it."""
    key = (file.resolve(), parallel, context, threads)
    server = _servers.get(key)
    if server is None:
        server = _servers[key] = Server(file, parallel, context, threads)
    return server


@atexit.register
def _close_all() -> None:
    for server in list(_living):
        server.close()


def _streamed(native: Any, request: Request, stop: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """Run a request in a thread of its own, and yield its chunks here."""
    chunks: SimpleQueue[dict[str, Any] | BaseException | None] = SimpleQueue()
    left = False

    def take(chunk: dict[str, Any]) -> bool:
        """Hand a chunk on; True ends the generation."""
        chunks.put(chunk)
        return left or stop()

    def work() -> None:
        try:
            native.handle_completions({**request, "stream": True}, take)
        except BaseException as error:
            chunks.put(error)
        finally:
            chunks.put(None)

    thread = Thread(target=work, daemon=True)
    thread.start()
    try:
        while (chunk := chunks.get()) is not None:
            if isinstance(chunk, BaseException):
                raise chunk
            if "error" in chunk or "choices" not in chunk:
                why = chunk.get("error", chunk)
                raise CamelBellError(f"llama.cpp refuses the prompt: {why.get('message', why)}")
            yield chunk
    finally:
        left = True
        thread.join()


def _native(file: Path, adapters: list[Path], parallel: int, context: int, threads: int) -> Any:
    """Load a file with its adapters, none of them at work unless a request says so."""
    llama = _llama()
    wanted = llama.CommonParams()
    wanted.model.path = str(file)
    wanted.lora_adapters = [llama.CommonAdapterLoraInfo(str(adapter), 1.0) for adapter in adapters]
    wanted.lora_init_without_apply = True
    wanted.n_parallel = parallel
    wanted.kv_unified = True
    wanted.n_ctx = context * parallel
    wanted.swa_full = True  # else a part of a prompt's state cannot be taken up again
    wanted.cache_ram_mib = _CACHE
    wanted.cpuparams.n_threads = wanted.cpuparams_batch.n_threads = threads
    wanted.verbosity = -1
    wanted.warmup = wanted.ui = wanted.endpoint_slots = False
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder, _own_signals():
        if sys.platform == "win32":
            wanted.api_keys = [secrets.token_urlsafe(32)]
        else:
            wanted.hostnames = [str(Path(folder) / "llama.sock")]
        return llama.Server(wanted)


def _llama() -> Any:
    """Import xllamacpp; its threads shall not spin while they wait for one another.

    On two busy processors spinning costs nine tenths of the speed, and on idle ones it gains nothing. OpenMP reads
    the setting once, when it is loaded; the environment is left as it was.
    """
    given = "GOMP_SPINCOUNT" in os.environ or "OMP_WAIT_POLICY" in os.environ
    if not given:
        os.environ["GOMP_SPINCOUNT"] = _SPINS
    try:
        import xllamacpp
    finally:
        if not given:
            del os.environ["GOMP_SPINCOUNT"]
    return xllamacpp


@contextmanager
def _own_signals() -> Iterator[None]:
    """Give Python its Ctrl-C back: the server takes SIGINT and SIGTERM for itself when it starts."""
    if sys.platform == "win32":
        yield
        return
    python = ctypes.pythonapi
    python.PyOS_getsig.restype = python.PyOS_setsig.restype = ctypes.c_void_p
    python.PyOS_setsig.argtypes = [ctypes.c_int, ctypes.c_void_p]
    kept = {number: python.PyOS_getsig(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            python.PyOS_setsig(number, handler)


def _processors() -> int:
    """Return how many processors this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1
