"""Charts as SVG text: bars, lines and heat maps that need no script and no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import log1p

_WIDTH, _LEFT, _ROW = 640, 190, 24


def bars(counts: Mapping[str, float], unit: str = "") -> str:
    """Return horizontal bars, one a name, each with its number."""
    if not counts:
        return ""
    most = max(counts.values()) or 1
    room = _WIDTH - _LEFT - 80
    lines = []
    for place, (name, count) in enumerate(counts.items()):
        y, width = place * _ROW, max(1.0, room * count / most)
        number = f"{count:,.0f}" if float(count).is_integer() else f"{count:,.3f}"
        lines.append(
            f'<text class="name" x="{_LEFT - 8}" y="{y + 16}">{escape(_short(name, 24))}</text>'
            f'<rect class="bar" x="{_LEFT}" y="{y + 4}" width="{width:.1f}" height="16" rx="3"/>'
            f'<text x="{_LEFT + width + 6:.1f}" y="{y + 16}">{number}{unit}</text>'
        )
    return _svg("".join(lines), len(counts) * _ROW)


def columns(counts: Sequence[tuple[float, int]], step: float, label: str) -> str:
    """Return a histogram: counts by the lower bound of each class, ``step`` apart."""
    if not counts:
        return ""
    most, height = max(count for _, count in counts), 150
    width = (_WIDTH - 40) / len(counts)
    lines = []
    for place, (bound, count) in enumerate(counts):
        tall = height * count / most
        x = 30 + place * width
        lines.append(
            f'<rect class="bar" x="{x:.1f}" y="{height - tall + 8:.1f}" width="{max(1.0, width - 2):.1f}" height="{tall:.1f}">'
            f"<title>{bound:g} to {bound + step:g}: {count:,}</title></rect>"
        )
        if place % max(1, len(counts) // 8) == 0:
            lines.append(f'<text x="{x:.1f}" y="{height + 24}">{bound:g}</text>')
    lines.append(f'<text class="axis" x="{_WIDTH - 8}" y="{height + 40}">{escape(label)}</text>')
    return _svg("".join(lines), height + 44)


def line(points: Sequence[tuple[float, float]], x_label: str, y_label: str) -> str:
    """Return a curve through points that are in order of x."""
    if len(points) < 2:
        return ""
    height, left, right = 180, 60, _WIDTH - 16
    xs, ys = [x for x, _ in points], [y for _, y in points]
    x0, x1, y1 = xs[0], xs[-1] if xs[-1] > xs[0] else xs[0] + 1, max(ys) or 1
    y0 = min(0.0, *ys)

    def at(x: float, y: float) -> str:
        return (
            f"{left + (right - left) * (x - x0) / (x1 - x0):.1f},{10 + (height - 10) * (y1 - y) / (y1 - y0 or 1):.1f}"
        )

    path = " ".join(at(x, y) for x, y in points)
    marks = "".join(
        f'<line class="grid" x1="{left}" x2="{right}" y1="{10 + (height - 10) * part:.0f}" y2="{10 + (height - 10) * part:.0f}"/>'
        f'<text class="name" x="{left - 6}" y="{14 + (height - 10) * part:.0f}">{y1 - (y1 - y0) * part:.3g}</text>'
        for part in (0, 0.5, 1)
    )
    ends = (
        f'<text x="{left}" y="{height + 18}">{x0:,.4g}</text>'
        f'<text class="axis" x="{right}" y="{height + 18}">{x1:,.4g}</text>'
        f'<text class="axis" x="{right}" y="{height + 34}">{escape(x_label)}</text>'
        f'<text x="{left + 6}" y="22">{escape(y_label)}</text>'
    )
    return _svg(f'{marks}<polyline class="curve" points="{path}"/>{ends}', height + 38)


def heat_map(rows: Mapping[str, Mapping[str, int]]) -> str:
    """Return a table of shades: how many of each row's name fall to each column's; empty cells stand out."""
    names = list(dict.fromkeys(column for row in rows.values() for column in row))
    if not rows or not names:
        return ""
    most = max((count for row in rows.values() for count in row.values()), default=1) or 1
    head = "".join(f"<th>{escape(_short(name, 16))}</th>" for name in names)
    body = []
    for name, row in rows.items():
        cells = "".join(_cell(row.get(column, 0), most) for column in names)
        body.append(f"<tr><th>{escape(_short(name, 32))}</th>{cells}</tr>")
    return f'<div class="wide"><table class="heat"><tr><th></th>{head}</tr>{"".join(body)}</table></div>'


def _cell(count: int, most: int) -> str:
    if not count:
        return '<td class="none">0</td>'
    shade = 0.12 + 0.88 * log1p(count) / log1p(most)
    dark = ' class="full"' if shade > 0.55 else ""
    return f'<td{dark} style="--shade:{shade:.2f}">{count:,}</td>'


def _svg(inside: str, height: float) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img">{inside}</svg>'


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
