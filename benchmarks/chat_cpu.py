"""How fast a character speaks on a processor: transformers, plain llama.cpp and ours, on the same prompts in one run.

    python benchmarks/chat_cpu.py [NAME] [--turns 6] [--rounds 3] [--without transformers]

Each way runs in a process of its own, in turns. ``start`` is from the beginning of the process to the first piece of
the first reply (for ours through ``camelbell chat``, with facts and guard, to the end of the reply), ``first token``
is that of later prompts, ``memory`` is the largest resident size. Limits: ours at least 0.95 of plain llama.cpp's
tokens a second; the first token of a second turn within a third of the first one's time where the persona is long.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from statistics import median
from typing import Any

_WORK = """
import json, resource, sys, time
begun = time.time()
way, name, turns = sys.argv[1], sys.argv[2], int(sys.argv[3])
from camelbell_core import pipeline
from camelbell_core.cli import open_named_run
from camelbell_core.model import loader_for
from camelbell_plugins.base_llamacpp.agree import prompts_of
run = open_named_run(name, None, ())
base = run.character.config.base
adapter = pipeline.find_adapter(run, base)
prompts = prompts_of(run, turns)
if way == "plain llama.cpp":
    import os, xllamacpp
    from camelbell_core.prompts import layout_for
    from camelbell_plugins.base_llamacpp.lora import lora_file
    file = loader_for(run.registry, f"llamacpp:{base}").gguf(base)
    layout = layout_for(file.tokenizer())
    wanted = xllamacpp.CommonParams()
    wanted.model.path, wanted.n_ctx, wanted.verbosity, wanted.warmup, wanted.ui = str(file.file), 4096, -1, False, False
    wanted.cpuparams.n_threads = wanted.cpuparams_batch.n_threads = len(os.sched_getaffinity(0))
    if adapter:
        wanted.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(lora_file(adapter, file)), 1.0)]
    native = xllamacpp.Server(wanted)
else:
    engine = "llamacpp" if way == "ours" else "transformers"
    model = loader_for(run.registry, f"{engine}:{base}").load(base, adapter)
    if way == "transformers fp32":
        model.model.float()
firsts, tokens, spent, start = [], 0, 0.0, 0.0
for prompt in prompts:
    asked, stamps = time.time(), []
    if way == "plain llama.cpp":
        request = {"prompt": layout.prefix(prompt), "n_predict": 48, "temperature": 0, "stream": True, "stop": ["\\n"]}
        native.handle_completions(request, lambda chunk: stamps.append(time.time()) and False)
    else:
        stamps = [time.time() for _ in model.stream(prompt, 48)]
    start = start or stamps[0] - begun
    firsts.append(stamps[0] - asked)
    if len(stamps) > 2:
        tokens, spent = tokens + len(stamps) - 1, spent + stamps[-1] - stamps[0]
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << (30 if sys.platform == "darwin" else 20))
print(json.dumps({"start": start, "first": firsts, "speed": tokens / spent, "memory": memory}))
"""
_PERSONA = """
import json, sys, time
from dataclasses import replace
from camelbell_core import pipeline
from camelbell_core.cli import open_named_run
from camelbell_core.model import loader_for
from camelbell_plugins.base_llamacpp.agree import prompts_of
run = open_named_run(sys.argv[1], None, ())
base = run.character.config.base
model = loader_for(run.registry, f"llamacpp:{base}").load(base, pipeline.find_adapter(run, base))
first, second = prompts_of(run, 2)
second = replace(second, language=first.language, persona=first.persona)
told = {}
list(model.stream(replace(first, question="warm"), 1))
for label, repeats in (("the bundle's persona", 1), ("a long persona", 40)):
    times = []
    for prompt in (first, second):
        asked = time.time()
        next(stream := model.stream(replace(prompt, persona=" ".join([label, *[prompt.persona] * repeats])), 2))
        times.append(time.time() - asked)
        stream.close()
    told[label] = times
print(json.dumps(told))
"""


def measured(code: str, *arguments: object) -> Any:
    """Run a piece of work in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", nargs="?", default="harry_potter")
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without", default="", help="leave out the ways that begin with this word")
    given = parser.parse_args()
    ways = ["transformers fp32", "transformers", "plain llama.cpp", "ours"]
    ways = [way for way in ways if not given.without or not way.startswith(given.without)]
    results: dict[str, list[Any]] = {way: [] for way in ways}
    for _ in range(given.rounds):
        for way in ways:
            results[way].append(measured(_WORK, way, given.name, given.turns))
    print(f"{'':<20}{'start':>9}{'first token':>13}{'tokens/s':>10}{'memory':>10}{'against plain':>15}")
    plain = median(result["speed"] for result in results["plain llama.cpp"])
    for way in ways:
        rows = results[way]
        start, speed, memory = (median(row[key] for row in rows) for key in ("start", "speed", "memory"))
        first = median(value for row in rows for value in row["first"][1:])
        print(f"{way:<20}{start:>7.1f} s{first:>11.2f} s{speed:>10.1f}{memory:>7.2f} GB{speed / plain:>15.2f}")
    seconds = []
    for _ in range(given.rounds):
        begun = time.time()
        command = [sys.executable, "-m", "camelbell_core.cli", "chat", given.name, "--message", "你的教父是谁？"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.time() - begun)
    print(f"camelbell chat --message, from the command to the end of the reply: {median(seconds):.1f} s (limit 4)")
    for label, (first, second) in measured(_PERSONA, given.name).items():
        print(f"second turn against first, {label}: {second:.2f} s / {first:.2f} s = {second / first:.2f}")


if __name__ == "__main__":
    main()
