"""The results as a picture for the README: what a core can do in a second.

Bars of messages per second of server CPU time, so that longer is better and
every bar starts at zero. The picture brings its own background and follows
the reader's light or dark scheme.
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.sax.saxutils import escape

from .peers import Peer
from .report import rate
from .results import Results
from .scenarios import Scenario

CHARTED = {
    "b": "Echo, 32 bytes",
    "c": "Echo, 32 bytes, 16 in flight",
    "d": "Echo, 16 KiB",
    "h": "Broadcast to 1,000 receivers",
}
UNITS = {"h": "deliveries"}

MARGIN, GAP = 24, 40
PANEL_WIDTH, NAME_WIDTH, VALUE_WIDTH = 460, 158, 56
ROW, BAR = 23, 13
PANEL_HEAD, HEAD, FOOT = 52, 62, 34
COLUMNS = 2

STYLE = """
  text { font-family: system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; }
  .ground { fill: #ffffff; stroke: #d8dee4; }
  .title { font-size: 18px; font-weight: 600; }
  .panel { font-size: 14px; font-weight: 600; }
  .title, .panel, .name, .value { fill: #1f2328; }
  .name, .value { font-size: 12px; }
  .note { font-size: 12px; fill: #59636e; }
  .ours { font-weight: 700; }
  .bar { fill: #afb8c1; } .bar.ours { fill: #0a7d55; } .bar.limit { fill: #d0d7de; }
  .axis { stroke: #d1d9e0; }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117; stroke: #30363d; }
    .title, .panel, .name, .value { fill: #e6edf3; }
    .note { fill: #9198a1; }
    .bar { fill: #57606a; } .bar.ours { fill: #3fb98a; } .bar.limit { fill: #3d444d; }
    .axis { stroke: #3d444d; }
  }
"""


@dataclass(frozen=True)
class Bar:
    label: str
    kind: str  # of CSS
    value: float  # a second of CPU time


def text(x: float, y: float, kind: str, content: str, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" class="{kind}" text-anchor="{anchor}">'
        f"{escape(content)}</text>"
    )


def kind_of(peer: Peer, subject: str) -> str:
    if peer.name.partition("-")[0] == subject:
        return "ours"
    return "limit" if peer.name == "c" else ""


def bars_of(results: Results, scenario: Scenario) -> list[Bar]:
    """Best first; whoever failed has no bar, and is named in the tables."""
    bars = []
    for peer in results.peers:
        if not peer.charted:
            continue
        figure = results.figure(peer.name, scenario)
        if figure and figure.median > 0 and not results.failures(peer.name, scenario.key):
            bars.append(Bar(peer.label, kind_of(peer, results.subject), 1e6 / figure.median))
    return sorted(bars, key=lambda bar: -bar.value)


def panel(x: float, y: float, scenario: Scenario, bars: list[Bar]) -> list[str]:
    unit = UNITS.get(scenario.key, "messages")
    parts = [
        text(x, y + 16, "panel", CHARTED[scenario.key]),
        text(x, y + 35, "note", f"{unit} per second of server CPU time"),
    ]
    left = x + NAME_WIDTH
    longest = max(bar.value for bar in bars)
    for i, bar in enumerate(bars):
        top = y + PANEL_HEAD + i * ROW
        middle = top + BAR / 2 + 4
        width = max(1.0, bar.value / longest * (PANEL_WIDTH - NAME_WIDTH - VALUE_WIDTH))
        shape = f'x="{left:.0f}" y="{top:.0f}" width="{width:.1f}" height="{BAR}" rx="2"'
        parts += [
            text(left - 8, middle, f"name {bar.kind}", bar.label, "end"),
            f'<rect {shape} class="bar {bar.kind}"/>',
            text(left + width + 6, middle, f"value {bar.kind}", rate(bar.value)),
        ]
    bottom = y + PANEL_HEAD + len(bars) * ROW - (ROW - BAR) + 3
    axis = f'<path d="M{left:.0f} {y + PANEL_HEAD - 3:.0f} V{bottom:.0f}" class="axis"/>'
    return [*parts, axis]


def svg(results: Results) -> str:
    panels = [(s, bars_of(results, s)) for s in results.scenarios if s.key in CHARTED]
    panels = [(s, bars) for s, bars in panels if bars]
    rows = -(-len(panels) // COLUMNS)
    most = max((len(bars) for _, bars in panels), default=0)
    panel_height = PANEL_HEAD + most * ROW + 18
    width = 2 * MARGIN + COLUMNS * PANEL_WIDTH + (COLUMNS - 1) * GAP
    height = HEAD + rows * panel_height + FOOT
    machine = results.machine()
    foot = (
        f"Server on one core of {machine['processor'].partition(',')[0]}, Python "
        f"{machine['python']}; medians of {results.rounds} rounds; {results.began:%Y-%m-%d}. "
        "Compression off. C does no more than frames: it is the limit."
    )
    title = "What one core can do in a second: longer is better"
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title)}">',
        f"<style>{STYLE}</style>",
        f'<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8" class="ground"/>',
        text(MARGIN, 38, "title", title),
    ]
    for i, (scenario, bars) in enumerate(panels):
        x = MARGIN + i % COLUMNS * (PANEL_WIDTH + GAP)
        parts += panel(x, HEAD + i // COLUMNS * panel_height, scenario, bars)
    parts += [text(MARGIN, height - 16, "note", foot), "</svg>"]
    return "\n".join(parts) + "\n"
