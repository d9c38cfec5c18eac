"""kill -9 at 50 random moments of questions, answers and filter: nothing lost, nothing twice, nothing paid again."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random
from select import select
from shutil import rmtree
from time import monotonic, sleep

import pytest

COUNT, AT_ONCE, KILLS = 40, 4, 50

# Imports once, then forks a child for each line it reads: a process a round, without two seconds of imports each.
ZYGOTE = """
import os, sys
from pathlib import Path
from camelbell_core.character import find_character
from camelbell_core.pipeline import filter_pairs, make_answers, make_questions, open_run
import aiohttp, rapidfuzz, numpy, sqlite3, pydantic
from camelbell_core.service import asker, ledger

bundles, count = Path(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        run = open_run(find_character("lumen", [bundles]), Path(line.strip()))
        with run.workspace.lock():
            make_questions(run, count)
            make_answers(run, None)
            filter_pairs(run)
        os._exit(0)
    print(pid, flush=True)
    _, status = os.waitpid(pid, 0)
    print("killed" if os.WIFSIGNALED(status) else os.WEXITSTATUS(status), flush=True)
"""


def rows(file):
    """Return the whole lines of a file; the last one may be torn."""
    return [json.loads(line) for line in file.read_bytes().split(b"\n")[:-1]] if file.exists() else []


def on_disk(folder):
    """Return the questions whose answers are in the workspace, in pairs.jsonl or in the ledger."""
    done = {row["question"] for row in rows(folder / "pairs.jsonl")}
    if (folder / "replies.sqlite").exists():
        with sqlite3.connect(folder / "replies.sqlite") as ledger:
            if ledger.execute("select 1 from sqlite_master where name = 'replies'").fetchone():
                done |= {text[1:-1] for (text,) in ledger.execute("select text from replies")}
        ledger.close()
    return done


def whole(folder):
    """Check a workspace whose stages have all ended."""
    questions = [row["text"] for row in rows(folder / "questions.jsonl")]
    pairs = rows(folder / "pairs.jsonl")
    judged = rows(folder / "kept.jsonl") + rows(folder / "rejected.jsonl")
    assert len(questions) == len(set(questions)) == COUNT
    assert Counter(pair["question"] for pair in pairs) == Counter(questions)
    assert all(pair["answer"] == f"<{pair['question']}>" for pair in pairs)
    assert sorted(row["id"] for row in judged) == sorted(pair["id"] for pair in pairs)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills processes as POSIX does")
def test_killed_at_50_random_moments_nothing_is_lost_doubled_or_paid_again(open_lumen, chat_service, tmp_path):
    run = open_lumen(answers={"openai": {"base_url": chat_service.url, "concurrency": AT_ONCE}})
    assert run.workspace.root == tmp_path / "run"
    chat_service.script = lambda question, times: sleep(0.01)
    rng, kills, finished, takes, states = Random(0), 0, 0, 0.0, Counter()
    command = [sys.executable, "-c", ZYGOTE, str(tmp_path / "bundles"), str(COUNT)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as zygote:
        assert zygote.stdout.readline() == "ready\n"
        folder = tmp_path / "runs" / "0"
        before, known, paid_again = Counter(), set(), 0
        while kills < KILLS:
            zygote.stdin.write(f"{folder}\n")
            pid = int(zygote.stdout.readline())
            # The first round is left alone, to see how long one takes on this machine.
            began = monotonic()
            ended, _, _ = select([zygote.stdout], [], [], rng.uniform(0.0, 0.8) * takes if finished else None)
            if not ended:
                os.kill(pid, signal.SIGKILL)
            outcome = zygote.stdout.readline().strip()
            done = on_disk(folder)
            asked_before, before = before, Counter(chat_service.asked)
            # What was on disk at the last kill was not asked for again in this round.
            again = {question for question in known if before[question] > asked_before[question]}
            assert not again
            known = done
            if outcome == "killed":
                kills += 1
                states[state(folder)] += 1
                continue
            assert outcome == "0"
            takes = takes or monotonic() - began
            whole(folder)
            paid_again += sum(chat_service.asked.values()) - COUNT
            assert set(chat_service.asked) == {row["text"] for row in rows(folder / "questions.jsonl")}
            finished += 1
            rmtree(folder)
            folder = tmp_path / "runs" / str(finished)
            chat_service.asked.clear()
            before, known = Counter(), set()
        zygote.stdin.close()
    assert paid_again <= AT_ONCE * kills
    assert finished >= 2 and len(states) >= 2  # the kills fell on different stages


def state(folder: Path) -> str:
    """Return how far a workspace has come."""
    counts = [len(rows(folder / name)) for name in ("questions.jsonl", "pairs.jsonl", "kept.jsonl")]
    return ["nothing", "questions", "answers", "filtered"][sum(map(bool, counts))]
