"""Opening the embedded base: ours the first time and from the cache, against transformers' own GGUF reader.

    python benchmarks/embedded_load.py

Each way runs in a process of its own; imports are counted in.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

OURS = "from camelbell_plugins.base_gguf import PackagedBase; PackagedBase().load_trainable('embedded')"
ASSEMBLE = (
    "from pathlib import Path; from camelbell_plugins.base_gguf import PACKAGES;"
    "from camelbell_plugins.base_gguf.convert import assemble; assemble(PACKAGES['embedded'], Path(r'{file}'))"
)
THEIRS = (
    "from transformers import AutoModelForCausalLM, AutoTokenizer;"
    "AutoTokenizer.from_pretrained(r'{folder}', gguf_file='model.gguf');"
    "AutoModelForCausalLM.from_pretrained(r'{folder}', gguf_file='model.gguf')"
)


def seconds(code: str, home: str) -> float:
    """Return how long a Python process takes for the code."""
    start = perf_counter()
    environment = {**os.environ, "CAMELBELL_HOME": home}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, stderr=subprocess.DEVNULL)
    return perf_counter() - start


def main() -> None:
    """Print the three times and their ratios."""
    with tempfile.TemporaryDirectory() as folder:
        first = seconds(OURS, folder)
        again = min(seconds(OURS, folder) for _ in range(2))
        seconds(ASSEMBLE.format(file=Path(folder) / "model.gguf"), folder)
        theirs = seconds(THEIRS.format(folder=folder), folder)
    print(f"transformers' gguf_file=  {theirs:6.1f} s   1.0")
    print(f"camelbell, first start    {first:6.1f} s   {theirs / first:.1f} times as fast   (limit 20 s)")
    print(f"camelbell, from the cache {again:6.1f} s   {theirs / again:.1f} times as fast   (limit 6 s)")


if __name__ == "__main__":
    main()
