"""The fastest layouts of a plan as a picture: where the seconds of a step and the bytes of a device go."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from moviegen.plan.evaluate import GIB, Candidate
from moviegen.plan.hardware import Hardware

WIDTH, BAR, GAP, LEFT, TOP = 460, 18, 10, 330, 64
COLORS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#9c6b4e")
BYTES = ("weights", "optimizer", "average", "gradients", "activations", "gathered", "transient")


def _seconds(candidate: Candidate) -> dict[str, float]:
    step = candidate.step
    exposed = {f"{axis} exposed": value for axis, value in step.exposed.items()}
    return {
        "products": step.products,
        "attention": step.attention,
        "elementwise": step.elementwise,
        "optimizer": step.optimizer,
        **exposed,
    }


def _gib(candidate: Candidate) -> dict[str, float]:
    return {name: candidate.memory.rows()[name] / GIB for name in BYTES}


def _name(candidate: Candidate) -> str:
    mesh, layout = candidate.layout.mesh, candidate.layout
    degrees = f"{mesh.dp_replicate} x {mesh.dp_shard} x cp {mesh.cp} x tp {mesh.tp}"
    context = f" {layout.context}" if mesh.cp > 1 else ""
    return f"{degrees}{context}, {layout.checkpointing}, {layout.micro_batch} at once"


def _bars(rows: Sequence[dict[str, float]], top: float, scale: float, left: float) -> list[str]:
    """Stacked bars, one row a layout, and the legend above them."""
    lines = []
    for number, row in enumerate(rows):
        x, y = left, top + number * (BAR + GAP)
        for color, (name, value) in zip(COLORS, row.items(), strict=False):
            width = value * scale
            lines.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{BAR}" fill="{color}">'
                f"<title>{escape(name)}: {value:.3g}</title></rect>"
            )
            x += width
    for number, (color, name) in enumerate(zip(COLORS, rows[0], strict=False)):
        x, y = left + number % 4 * 115, top - 34 + number // 4 * 16
        lines.append(f'<rect x="{x}" y="{y}" width="10" height="10" fill="{color}"/>')
        lines.append(f'<text x="{x + 14}" y="{y + 9}">{escape(name)}</text>')
    return lines


def picture(title: str, hardware: Hardware, candidates: Sequence[Candidate]) -> str:
    """An svg: a row a layout, its seconds on the left, its GiB on the right with the limit of the device."""
    seconds, gib = [_seconds(c) for c in candidates], [_gib(c) for c in candidates]
    longest = max(sum(row.values()) for row in seconds)
    limit = hardware.usable_bytes / GIB
    most = max(limit, *(sum(row.values()) for row in gib))
    right, top = LEFT + WIDTH + 60, TOP + 30
    height = top + len(candidates) * (BAR + GAP) + 20
    width, devices = right + WIDTH + 40, candidates[0].layout.devices
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="10" y="20" font-size="14">{escape(title)}; {devices} x {escape(hardware.name)}</text>',
        f'<text x="{LEFT}" y="{TOP - 16}" font-weight="bold">seconds a step (0 to {longest:.3g})</text>',
        f'<text x="{right}" y="{TOP - 16}" font-weight="bold">GiB a device, all parts (limit {limit:.1f})</text>',
        '<text x="10" y="78">dp_replicate x dp_shard x cp x tp, checkpointing</text>',
        *_bars(seconds, top, WIDTH / longest, LEFT),
        *_bars(gib, top, WIDTH / most, right),
    ]
    x = right + limit * WIDTH / most
    ends = f'x1="{x:.1f}" x2="{x:.1f}" y1="{top - 4}" y2="{height - 14}"'
    lines.append(f'<line {ends} stroke="#c00" stroke-dasharray="4 3"/>')
    for number, candidate in enumerate(candidates):
        y = top + number * (BAR + GAP) + 13
        lines.append(f'<text x="10" y="{y}">{escape(_name(candidate))}</text>')
        end = LEFT + sum(seconds[number].values()) * WIDTH / longest + 4
        lines.append(f'<text x="{end:.1f}" y="{y}">{candidate.step.seconds:.2f} s</text>')
    return "\n".join([*lines, "</svg>", ""])
