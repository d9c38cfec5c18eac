"""The picture of a character: ``avatar.svg`` of its bundle, or the first letter of its name on a coloured ground."""

from __future__ import annotations

from hashlib import sha256
from html import escape

from camelbell_core.character import Character
from camelbell_core.errors import CamelBellError

_MOST = 256 * 1024  # bytes


def avatar(character: Character) -> bytes:
    """Return the picture as SVG."""
    file = character.root / "avatar.svg"
    if not file.is_file():
        return drawn(character.title(character.languages[0]))
    picture = file.read_bytes()
    if len(picture) > _MOST or b"<svg" not in picture:
        raise CamelBellError(
            f"{file} is no SVG picture of at most {_MOST // 1024} KiB", "draw a smaller one, or leave it out"
        )
    return picture


def drawn(name: str) -> bytes:
    """Return a picture with the first letter of a name."""
    letter = next((letter for letter in name if letter.isalnum()), "?").upper()
    hue = int(sha256(name.encode()).hexdigest()[:4], 16) % 360
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 96 96" role="img">'
        f'<circle cx="48" cy="48" r="48" fill="hsl({hue},45%,38%)"/>'
        '<text x="48" y="50" fill="#fff" font-family="sans-serif" font-size="46" text-anchor="middle"'
        f' dominant-baseline="central">{escape(letter)}</text></svg>'
    ).encode()
