"""How long the light commands take, against a bare interpreter that imports pluggy and yaml.

python benchmarks/startup.py [RUNS]
"""

import subprocess
import sys
from statistics import median
from time import perf_counter

BARE = [sys.executable, "-c", "import pluggy, yaml"]
COMMANDS = (["--help"], ["characters"], ["plugins"])
LIMIT = 3.0  # times the bare interpreter, for --help


def seconds(command: list[str]) -> float:
    """Return the wall time of a command."""
    start = perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return perf_counter() - start


def main(runs: int = 15) -> None:
    """Time each command in turn with the bare interpreter, and print medians and ratios."""
    seconds(BARE)
    print(f"{'command':<22}{'seconds':>9}{'bare':>8}{'ratio':>8}")
    for arguments in COMMANDS:
        command = [sys.executable, "-m", "camelbell_core.cli", *arguments]
        pairs = [(seconds(command), seconds(BARE)) for _ in range(runs)]
        ours, bare = median(a for a, _ in pairs), median(b for _, b in pairs)
        ratio = median(a / b for a, b in pairs)
        limit = f"  (limit {LIMIT:.1f})" if arguments == ["--help"] else ""
        print(f"camelbell {arguments[0]:<12}{ours:>9.3f}{bare:>8.3f}{ratio:>8.2f}{limit}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
