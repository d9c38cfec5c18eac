"""Check what a wheel holds: three top-level packages, every bundle whole, no caches."""

import sys
from pathlib import Path
from zipfile import ZipFile

PACKAGES = {"camelbell_core", "camelbell_plugins", "camelbell_characters"}
ROOT = Path(__file__).resolve().parent.parent


def wanted_files() -> set[str]:
    """Return the names that the source tree says the wheel must hold."""
    names = set()
    for package, folder in (("camelbell_core", "camelbell_core"), ("camelbell_plugins", "plugins")):
        files = (file for file in (ROOT / folder).rglob("*") if file.is_file() and "__pycache__" not in file.parts)
        names |= {f"{package}/{file.relative_to(ROOT / folder).as_posix()}" for file in files}
    for file in (ROOT / "characters").rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            names.add(f"camelbell_characters/{file.relative_to(ROOT / 'characters').as_posix()}")
    return names


def main(wheel: str) -> int:
    """Compare the wheel with the tree and say what is lacking or too much."""
    held = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = wanted_files()
    for name in sorted(wanted - held):
        print(f"the wheel lacks {name}")
    for name in sorted(held - wanted):
        print(f"the wheel should not hold {name}")
    strangers = {name.split("/")[0] for name in held} - PACKAGES
    if strangers:
        print(f"strange top-level names: {', '.join(sorted(strangers))}")
    size = Path(wheel).stat().st_size / 2**20
    print(f"{Path(wheel).name}: {len(held)} files, {size:.1f} MiB")
    return 1 if held != wanted else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
