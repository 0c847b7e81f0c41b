"""Pictures of graphs as SVG, laid out here: no other program is needed, and a browser shows tooltips."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from graphc.cli.layout import Box, Link, layout
from graphc.cli.picture import Item, Picture
from graphc.cli.style import STYLES

CHARACTER = 0.602       # width of a monospaced character, in font sizes: the same for all such fonts, so boxes fit
TITLE, SMALL = 12.5, 10.0
FONT = "'DejaVu Sans Mono', 'SF Mono', Menlo, Consolas, 'Liberation Mono', monospace"
PADDING = 16            # inside a region
MARGIN = 24             # around the whole picture
CONTROL = "#f04438"


def svg(picture: Picture) -> str:
    """The SVG text of a picture."""
    drawing = _Drawing(picture, header=None)
    width, height = drawing.width + 2 * MARGIN, drawing.height + 2 * MARGIN
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
             f'viewBox="0 0 {width:.1f} {height:.1f}" font-family={quoteattr(FONT)}>',
             f"<title>{_text(picture.name)}</title>",
             '<rect width="100%" height="100%" fill="#ffffff"/>']
    drawing.write(lines, MARGIN, MARGIN)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _text(text: str) -> str:
    """Text for XML: escaped, without the control characters that XML forbids."""
    return escape("".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text))


def _width(text: str, size: float) -> float:
    return len(text) * CHARACTER * size


@dataclass(eq=False)
class _Placed:
    """An item with its box; a region also with the drawing inside."""

    item: Item
    box: Box
    inner: _Drawing | None = None


class _Drawing:
    """A picture, laid out. `header` is a region's name, which gets a place beside its parameters; `labels` will stand
    below its results.
    """

    def __init__(self, picture: Picture, header: str | None, labels: Sequence[str] = ()):
        self.placed = {item: _placed(item) for item in picture.items}
        for side, name in ((picture.parameters, "top"), (picture.results, "bottom")):
            for item in side if header is not None else ():
                setattr(self.placed[item].box, name, True)
        for item, label in zip(picture.results, labels, strict=False):
            self.placed[item].box.labels = [_label_width(label)]
        self.lines = picture.lines
        self.links = [Link(self.placed[line.source].box, self.placed[line.target].box, line.out,
                           0 if line.is_control else line.into) for line in picture.lines]
        self.header = _wrapped(header) if header is not None else []
        self.width, self.height = layout([p.box for p in self.placed.values()], self.links)
        self.make_room()

    def make_room(self) -> None:
        """Move the drawing so that the header has its place, left of the parameters, or above when there are none."""
        wide = max((_width(t, SMALL) for t in self.header), default=0.0)
        tops = [p.box for p in self.placed.values() if p.box.top]
        if tops:
            self.shift(max(0.0, wide + PADDING - min(b.x - b.left for b in tops)), 0)
        elif self.header:
            self.width = max(self.width, wide)
            self.shift(0, 13.0 * len(self.header) + 6)

    def shift(self, dx: float, dy: float) -> None:
        """Move everything."""
        self.width += dx
        self.height += dy
        for placed in self.placed.values():
            placed.box.x += dx
            placed.box.y += dy
        for link in self.links:
            link.points = [(x + dx, y + dy) for x, y in link.points]

    def ports(self, side: list[Item]) -> list[float]:
        """The centres of the ports' boxes, from the left."""
        return [self.placed[item].box.x for item in side]

    # writing ------------------------------------------------------------------------------------------

    def write(self, lines: list[str], x: float, y: float) -> None:
        """Add the drawing's elements, its corner at (x, y)."""
        for number, text in enumerate(self.header):
            lines.append(f'<text x="{x:.1f}" y="{y + 10 + 13 * number:.1f}" font-size="{SMALL}" font-weight="bold" '
                         f'fill="{STYLES["region"][2]}">{_text(text)}</text>')
        for link, line in zip(self.links, self.lines, strict=True):
            lines.append(_path(link, x, y, line.is_control))
        for placed in self.placed.values():
            self.write_item(placed, lines, x, y)

    def write_item(self, placed: _Placed, lines: list[str], dx: float, dy: float) -> None:
        item, box = placed.item, placed.box
        fill, border, ink = STYLES[item.style]
        left, top = dx + box.x - box.width / 2, dy + box.y
        lines.append(f'<g class="{item.style}"><title>{_text(item.tooltip)}</title>')
        lines.append(_outline(item.style, left, top, box.width, box.height, fill, border))
        if placed.inner is None:
            self.write_lines(item, lines, dx + box.x, top, box.height, ink)
        lines.append("</g>")
        if placed.inner is not None:
            placed.inner.write(lines, left + PADDING, top + PADDING / 2)
        used = {link.out for link in self.links if link.source is box}
        for port, label in enumerate(item.outs):
            if label and port in used:
                lines.append(f'<text x="{dx + box.x + box.outs[port] + 5:.1f}" y="{top + box.height + 12:.1f}" '
                             f'font-size="9" fill="#667085">{_text(label)}</text>')

    def write_lines(self, item: Item, lines: list[str], x: float, top: float, height: float, ink: str) -> None:
        size = SMALL if item.style in ("constant", "port") else TITLE
        y = top + (height - _text_height(item)) / 2
        for number, text in enumerate(item.lines):
            main = number == 0
            y += size * 0.86 if main else SMALL * 1.28
            weight = ' font-weight="bold"' if main and item.style not in ("constant", "port") else ""
            faint = "" if main else ' fill-opacity="0.72"'
            lines.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle" font-size="{size if main else SMALL}"'
                         f'{weight} fill="{ink}"{faint}>{_text(text)}</text>')


def _wrapped(name: str) -> list[str]:
    """A region's name on lines of about equal length, broken at underscores."""
    lines = [""]
    for word in name.split("_"):
        joined = f"{lines[-1]}_{word}" if lines[-1] else word
        if len(joined) > 20 and lines[-1]:
            lines[-1] += "_"
            lines.append(word)
        else:
            lines[-1] = joined
    return lines


def _text_height(item: Item) -> float:
    size = SMALL if item.style in ("constant", "port") else TITLE
    return size + (len(item.lines) - 1) * SMALL * 1.28


def _placed(item: Item) -> _Placed:
    if item.inner is not None:
        return _placed_region(item)
    size = SMALL if item.style in ("constant", "port") else TITLE
    width = max(_width(text, size if k == 0 else SMALL) for k, text in enumerate(item.lines))
    width += {"port": 12, "constant": 16, "feed": 34, "variable": 26}.get(item.style, 24)
    height = _text_height(item) + {"port": 6, "constant": 8}.get(item.style, 16)
    ins = _spread(item.ins, width)
    return _Placed(item, Box(width, height, ins, [0.0], _label_room(item)))


def _placed_region(item: Item) -> _Placed:
    assert item.inner is not None
    inner = _Drawing(item.inner, item.lines[0], item.outs)
    width, height = inner.width + 2 * PADDING, inner.height + PADDING
    middle = width / 2 - PADDING
    ins = [x - middle for x in inner.ports(item.inner.parameters)] or [0.0]
    outs = [x - middle for x in inner.ports(item.inner.results)] or [0.0]
    return _Placed(item, Box(width, height, ins, outs, _label_room(item)), inner)


def _label_room(item: Item) -> list[float]:
    return [_label_width(t) for t in item.outs]


def _label_width(text: str) -> float:
    return _width(text, 9) + 9 if text else 0.0


def _spread(count: int, width: float) -> list[float]:
    """Ports side by side over the middle of a box."""
    step = min(16.0, 0.8 * width / max(count, 1))
    return [(k - (count - 1) / 2) * step for k in range(count)]


def _outline(style: str, x: float, y: float, w: float, h: float, fill: str, border: str) -> str:
    look = f'fill="{fill}" stroke="{border}"'
    if style == "feed":          # a funnel: values come in here
        slant = 10
        corners = [(x, y), (x + w, y), (x + w - slant, y + h), (x + slant, y + h)]
        return f'<polygon points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in corners)}" {look} stroke-linejoin="round"/>'
    if style == "variable":      # a drum: what stays
        bulge = 4
        body = (f"M{x:.1f},{y + bulge:.1f} v{h - 2 * bulge:.1f} a{w / 2:.1f},{bulge} 0 0 0 {w:.1f},0 "
                f"v{-h + 2 * bulge:.1f} a{w / 2:.1f},{bulge} 0 0 0 {-w:.1f},0 a{w / 2:.1f},{bulge} 0 0 0 {w:.1f},0")
        return f'<path d="{body}" {look}/>'
    radius = {"port": 7, "region": 10, "constant": 2, "result": 13}.get(style, 6)
    dash = ' stroke-dasharray="3 2"' if style == "constant" else ""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="{radius}" {look}{dash}/>'


def _path(link: Link, dx: float, dy: float, is_control: bool) -> str:
    """A link as a curve that is vertical at every row, with an arrow head."""
    points = [(x + dx, y + dy) for x, y in link.points]
    text = f"M{points[0][0]:.1f},{points[0][1]:.1f}"
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        if abs(x0 - x1) < 0.5:
            text += f" L{x1:.1f},{y1:.1f}"
        else:
            middle = (y0 + y1) / 2
            text += f" C{x0:.1f},{middle:.1f} {x1:.1f},{middle:.1f} {x1:.1f},{y1:.1f}"
    x, y = points[-1]
    colour = CONTROL if is_control else "#7d8aa0"
    dash = ' stroke-dasharray="4 3"' if is_control else ""
    return (f'<path d="{text}" fill="none" stroke="{colour}" stroke-width="1.2"{dash}/>'
            f'<path d="M{x:.1f},{y:.1f} l-3.4,-6.5 h6.8 z" fill="{colour}"/>')
