"""Model folders: their fingerprints, and how they are fetched from a hub."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from camelbell_core.folders import folder_fingerprint
from camelbell_plugins.base_hub import HubBase

MIB = 1 << 20


# --- fingerprints ---------------------------------------------------------------------------------


def model_folder(folder: Path) -> Path:
    """Return a folder with weights of 3 MiB and of 8 bytes."""
    folder.mkdir()
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (folder / "a.safetensors").write_bytes(bytes(3 * MIB))
    (folder / "b.bin").write_bytes(bytes(8))
    return folder


def set_byte(name: str, place: int) -> Callable[[Path], None]:
    """Return what changes one byte of a file."""

    def change(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[place] ^= 1
        (folder / name).write_bytes(data)

    return change


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda folder: None, True),
        (lambda folder: (folder / "README.md").write_text("你好 hello", encoding="utf-8"), True),
        (lambda folder: (folder / "tokenizer.json").write_text("{}", encoding="utf-8"), True),
        (set_byte("a.safetensors", 3 * MIB // 2), True),  # the middle is not read, as the docstring says
        (set_byte("a.safetensors", 0), False),
        (set_byte("a.safetensors", MIB - 1), False),
        (set_byte("a.safetensors", 2 * MIB), False),
        (set_byte("a.safetensors", -1), False),
        (set_byte("b.bin", 4), False),
        (lambda folder: (folder / "a.safetensors").write_bytes(bytes(3 * MIB + 1)), False),
        (lambda folder: (folder / "b.bin").write_bytes(b""), False),
        (lambda folder: (folder / "b.bin").unlink(), False),
        (lambda folder: (folder / "b.bin").rename(folder / "c.bin"), False),
        (lambda folder: (folder / "c.safetensors").write_bytes(b""), False),
        (lambda folder: (folder / "config.json").write_text("{ }", encoding="utf-8"), False),
    ],
)
def test_a_fingerprint_changes_with_configuration_and_weights_only(
    change: Callable[[Path], None], same: bool, tmp_path: Path
) -> None:
    first, second = model_folder(tmp_path / "one"), model_folder(tmp_path / "two")
    change(second)
    assert (folder_fingerprint(first) == folder_fingerprint(second)) is same


# --- the hub --------------------------------------------------------------------------------------

FETCH = """
import sys
from camelbell_core.errors import CamelBellError
from camelbell_core.folders import fetch
try:
    print("folder", fetch(sys.argv[1]))
except CamelBellError as error:
    print("error", error.message)
"""


class Hub:
    """A model hub on 127.0.0.1 that has the given folders."""

    def __init__(self, folders: dict[str, Path]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._reply(True)

            def do_HEAD(self) -> None:
                self._reply(False)

            def _reply(self, with_body: bool) -> None:
                path = self.path.split("?")[0].strip("/").removeprefix("api/models/").split("/")
                folder, rest = folders.get("/".join(path[:2])), path[2:]
                body = self._body(folder, rest) if folder is not None else None
                self.send_response(404 if body is None else 200)
                self.send_header("X-Repo-Commit", "0" * 40)
                self.send_header("ETag", f'"{hashlib.sha1(body or b"").hexdigest()}"')
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                if with_body:
                    self.wfile.write(body or b"")

            def _body(self, folder: Path, rest: list[str]) -> bytes | None:
                if rest[:1] == ["revision"]:
                    files = [{"rfilename": file.name} for file in sorted(folder.iterdir())]
                    return json.dumps({"id": "org/name", "sha": "0" * 40, "siblings": files}).encode()
                if rest[:1] == ["tree"]:
                    rows = [
                        {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0" * 40}
                        for file in sorted(folder.iterdir())
                    ]
                    return json.dumps(rows).encode()
                return (folder / rest[-1]).read_bytes() if rest[:1] == ["resolve"] else None

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def fetch(tiny_bases: dict[str, Path], tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Fetch a model from a hub that has org/tiny and org/gguf, in a process of its own."""
    (tmp_path / "gguf").mkdir()
    (tmp_path / "gguf" / "model.gguf").write_bytes(b"GGUF")
    tiny = shutil.copytree(tiny_bases["llama-plain"], tmp_path / "hub-tiny")
    (tiny / "weights.h5").write_bytes(b"of another library")
    hub = Hub({"org/tiny": tiny, "org/gguf": tmp_path / "gguf"})

    def run(name: str, url: str = hub.url) -> str:
        ours = ("HF_", "TRANSFORMERS_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        words = {key: value for key, value in os.environ.items() if not key.upper().startswith(ours)}
        words |= {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
        command = [sys.executable, "-c", FETCH, name]
        done = subprocess.run(command, env=words, capture_output=True, text=True, encoding="utf-8", check=True)
        return done.stdout.strip()

    yield run
    hub.server.shutdown()
    hub.server.server_close()


def test_a_hub_id_is_fetched_and_opened(fetch: Callable[..., str], tiny_bases: dict[str, Path]) -> None:
    word, folder = fetch("org/tiny").split(" ", 1)
    assert word == "folder"
    names = sorted(file.name for file in Path(folder).iterdir())
    assert names == sorted(file.name for file in tiny_bases["llama-plain"].iterdir())
    base = HubBase().load_trainable(folder)
    assert base.fingerprint == folder_fingerprint(tiny_bases["llama-plain"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("org/none", "error the base model 'org/none' cannot be fetched: "),
        ("org/a..b", "error the base model 'org/a..b' cannot be fetched: "),
        ("orgé/name", "error the base model 'orgé/name' cannot be fetched: "),
        ("org/gguf", "error 'org/gguf' holds no model of transformers: it has no config.json"),
    ],
)
def test_a_hub_id_that_cannot_be_had_is_an_error_that_says_why(
    fetch: Callable[..., str], name: str, message: str
) -> None:
    said = fetch(name)
    assert said.startswith(message)
    assert "\n" not in said


def test_a_hub_that_does_not_answer_is_an_error_that_says_so(fetch: Callable[..., str]) -> None:
    said = fetch("org/tiny", "http://127.0.0.1:9")
    assert said.startswith("error the base model 'org/tiny' cannot be fetched: ")
