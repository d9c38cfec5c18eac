import os
import signal
import subprocess
import sys

import pytest

from camelbell_core.errors import CamelBellError
from camelbell_core.service.ledger import Ledger, Spent
from camelbell_core.service.replies import Reply

REPLIES = [Reply("你好，😀", "stop", 10, 5), Reply("Hello\n\u2028there", "length", 7, 300)]


@pytest.mark.parametrize("reply", REPLIES)
def test_a_reply_is_there_when_the_file_is_opened_again(tmp_path, reply):
    file = tmp_path / "deep" / "replies.sqlite"
    with Ledger(file) as ledger:
        assert ledger.get("k") is None
        ledger.put("k", reply, 0.25)
        assert ledger.get("k") == reply
    with Ledger(file) as ledger:
        assert ledger.get("k") == reply
        assert ledger.get("other") is None
        assert ledger.spent == Spent(1, reply.tokens_in, reply.tokens_out, 0.25)


def test_what_is_counted_only_is_spent_and_never_given():
    with Ledger(None) as ledger:
        for reply in REPLIES:
            ledger.count(reply, 0.5)
        assert ledger.spent == Spent(2, 17, 305, 1.0)


KILLED = """
import os, signal, sys
from pathlib import Path
from camelbell_core.service.ledger import Ledger
from camelbell_core.service.replies import Reply
ledger = Ledger(Path(sys.argv[1]))
for number in range(100):
    ledger.put(str(number), Reply(f"第{number}个"))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_9_loses_no_reply(tmp_path):
    file = tmp_path / "replies.sqlite"
    done = subprocess.run([sys.executable, "-c", KILLED, str(file)])
    assert done.returncode == -signal.SIGKILL
    with Ledger(file) as ledger:
        assert [ledger.get(str(number)).text for number in range(100)] == [f"第{number}个" for number in range(100)]


def test_a_file_that_is_no_ledger_is_named(tmp_path):
    file = tmp_path / "replies.sqlite"
    file.write_bytes(b"not a database at all, but long enough to be looked at" * 20)
    with pytest.raises(CamelBellError) as caught:
        Ledger(file)
    assert caught.value.message == f"cannot use {file}: file is not a database"


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="limits files as POSIX does")
def test_a_full_disk_is_told_and_what_was_written_stays(tmp_path):
    script = """
import resource, signal, sys
from pathlib import Path
from camelbell_core.errors import CamelBellError
from camelbell_core.service.ledger import Ledger
from camelbell_core.service.replies import Reply
ledger = Ledger(Path(sys.argv[1]))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    for number in range(10_000):
        ledger.put(str(number), Reply("很长" * 200))
except CamelBellError as error:
    print(number, error.message)
"""
    file = tmp_path / "replies.sqlite"
    done = subprocess.run([sys.executable, "-c", script, str(file)], capture_output=True, text=True, check=True)
    number, _, message = done.stdout.strip().partition(" ")
    assert str(file) in message
    with Ledger(file) as ledger:
        assert all(ledger.get(str(n)) == Reply("很长" * 200) for n in range(int(number)))
