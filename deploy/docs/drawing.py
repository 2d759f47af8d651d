"""Boxes, arrows and words as SVG, in the site's colours: the one style of all its pictures.

A picture is 480 wide, so that a phone shows it at nearly its own size. It follows the page's light or dark scheme where
it stands in a page, and the system's where it stands alone.
"""

import math
from dataclasses import dataclass, field
from html import escape

WIDTH = 480
_STYLE = """<style>
.hr text{font:12.5px system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif;
fill:var(--hr-ink,#1d2733)}
.hr .t{font-weight:600;font-size:13.5px}.hr .d{fill:var(--hr-dim,#5b6875);font-size:11.5px}
.hr .h{paint-order:stroke;stroke:var(--hr-paper,#fff);stroke-width:5;stroke-linejoin:round}
.hr .on{fill:var(--hr-paper,#fff);font-size:11.5px}.hr .m{text-anchor:middle}.hr .e{text-anchor:end}
.hr rect{fill:var(--hr-box,#eef4f8);stroke:var(--hr-edge,#8fa5b5);stroke-width:1.2}
.hr .l{fill:none;stroke-width:1.6}.hr .l.w{stroke-dasharray:5 4}
.hr .k{stroke:var(--hr-edge,#8fa5b5)}.hr .a{stroke:var(--hr-a,#17537a)}.hr .b{stroke:var(--hr-b,#0b7a75)}
.hr .c{stroke:var(--hr-c,#b0620b)}.hr .v{stroke:var(--hr-d,#7a3d8f)}
.hr .fk{fill:var(--hr-edge,#8fa5b5)}.hr .fa{fill:var(--hr-a,#17537a)}.hr .fb{fill:var(--hr-b,#0b7a75)}
.hr .fc{fill:var(--hr-c,#b0620b)}.hr .fv{fill:var(--hr-d,#7a3d8f)}
.hr rect.fa,.hr rect.fb,.hr rect.fc,.hr rect.fv,.hr rect.fk{stroke:none}.hr rect.o{fill:none;stroke-dasharray:4 4}
</style>"""
# Alone there is no page to say which scheme it is; in a page this part is left out.
_ALONE = """<style class="alone">@media (prefers-color-scheme: dark){svg.hr{background:#1e2129;--hr-paper:#1e2129;
--hr-ink:#e4ebf1;--hr-dim:#a3b1bd;--hr-box:#27313b;--hr-edge:#5f7486;--hr-a:#7cc0ea;--hr-b:#4fc3bd;--hr-c:#f0a957;--hr-d:#cf9be0}}</style>"""


@dataclass
class Picture:
    """Colours: k neutral, a, b, c, v."""

    height: int
    about: str
    parts: list[str] = field(default_factory=list)

    def box(self, x: float, y: float, w: float, h: float, title: str = "", *lines: str, colour: str = "") -> None:
        """Words in its middle; a colour is that of its edge."""
        edge = f' class="{colour}"' if colour else ""
        self.parts.append(f'<rect{edge} x="{x}" y="{y}" width="{w}" height="{h}" rx="6"/>')
        rows = [(title, "t m"), *((line, "d m") for line in lines)] if title else [(line, "d m") for line in lines]
        top = y + h / 2 - 8 * (len(rows) - 1) + 4.5
        for at, (words, kind) in enumerate(rows):
            self.words(x + w / 2, top + 16 * at, words, kind)

    def block(self, x: float, y: float, w: float, h: float, kind: str) -> None:
        self.parts.append(f'<rect class="{kind}" x="{x}" y="{y}" width="{w}" height="{h}" rx="2.5"/>')

    def words(self, x: float, y: float, text: str, kind: str = "") -> None:
        self.parts.append(f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(text)}</text>')

    def line(self, *points: tuple[float, float], colour: str = "k", waiting: bool = False) -> None:
        way = " ".join(f"{x:g},{y:g}" for x, y in points)
        self.parts.append(f'<polyline class="l {colour}{" w" if waiting else ""}" points="{way}"/>')

    def arrow(self, *points: tuple[float, float], colour: str = "k", waiting: bool = False, both: bool = False) -> None:
        self.line(*points, colour=colour, waiting=waiting)
        self._head(points[-2], points[-1], colour)
        if both:
            self._head(points[1], points[0], colour)

    def _head(self, before: tuple[float, float], tip: tuple[float, float], colour: str) -> None:
        turn = math.atan2(tip[1] - before[1], tip[0] - before[0])
        corners = [tip]
        for side in (2.7, -2.7):
            corners.append((tip[0] + 8 * math.cos(turn + side), tip[1] + 8 * math.sin(turn + side)))
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
        self.parts.append(f'<polygon class="f{colour}" points="{way}"/>')

    def svg(self) -> str:
        head = f'<svg class="hr" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height}" role="img"'
        body = "\n".join(self.parts)
        return f'{head} aria-label="{escape(self.about, quote=True)}">\n{_STYLE}\n{_ALONE}\n{body}\n</svg>\n'
