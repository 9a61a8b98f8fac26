"""The picture of the ratios: SVG, by hand, for light and dark pages."""

from __future__ import annotations

import math
from html import escape

from benchmarks.report import Line

_ROW, _TOP, _LEFT, _WIDTH, _RIGHT = 24, 46, 300, 360, 150
_MOST = 2.0  # doublings to either side of what is wanted
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 } .faint { fill: #656d76 } .axis { stroke: #8c959f }
.reached { fill: #1a7f37 } .short { fill: #bc4c00 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .faint { fill: #8d96a0 } .reached { fill: #3fb950 } .short { fill: #db6d28 }
}
"""


def draw(lines: list[Line], subtitle: str) -> str:
    """Draw how far each ratio is from what is wanted, on a scale of doublings: to the right is better."""
    height = _TOP + _ROW * len(lines) + 14
    middle = _LEFT + _WIDTH / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + _RIGHT} {height}" role="img"'
        ' aria-label="Ratios of JobBridge to other job queues, against what is wanted">',
        f"<style>{_STYLE}</style>",
        f'<text x="8" y="18">{escape(subtitle)}</text>',
    ]
    for doublings, text in ((-2, "a quarter"), (-1, "half"), (0, "as wanted"), (1, "twice as good"), (2, "")):
        x = middle + doublings * _WIDTH / 2 / _MOST
        dash = "" if doublings == 0 else ' stroke-dasharray="2 4"'
        parts.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{_TOP}" y2="{height - 8}"{dash}/>')
        parts.append(f'<text class="faint" x="{x}" y="{_TOP - 8}" text-anchor="middle">{text}</text>')
    for number, line in enumerate(lines):
        parts += _bar(line, _TOP + _ROW * number, middle)
    parts.append("</svg>\n")
    return "\n".join(parts)


def _bar(line: Line, y: int, middle: float) -> list[str]:
    doublings = max(-_MOST, min(_MOST, math.log2(line.share)))
    width = max(1.5, abs(doublings) * _WIDTH / 2 / _MOST)
    x = middle if doublings >= 0 else middle - width
    kind = "reached" if line.share >= 1 else "short"
    return [
        f'<text x="{_LEFT - 10}" y="{y + 17}" text-anchor="end">{escape(line.comparison.text)}</text>',
        f'<rect class="{kind}" x="{x:.1f}" y="{y + 5}" width="{width:.1f}" height="{_ROW - 9}" rx="2"/>',
        f'<text x="{_LEFT + _WIDTH + 10}" y="{y + 17}">{line.ratio:.2f}'
        f'<tspan class="faint"> wanted {line.wanted}</tspan></text>',
    ]
