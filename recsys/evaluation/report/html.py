"""Pieces of HTML: everything that is text is escaped here, once."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--card:#f6f7f9;--ink:#1b1f24;--soft:#59636e;
--rule:#d9dee3;--shade:#59636e55;--s0:#1f5fbf;--s1:#c2570c;--s2:#2e7d4f;--s3:#8a4fb0;--good:#1f7a45;--warn:#9a6200;
--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--paper:#14171b;--card:#1d2126;--ink:#e6e9ec;
--soft:#a0a9b2;--rule:#353b42;--shade:#a0a9b255;--s0:#74a9f5;--s1:#f09a57;--s2:#6cc48f;--s3:#c79be6;--good:#6cc48f;
--warn:#e5b567;--bad:#f28b82}}
*{box-sizing:border-box}
body{margin:0;overflow-wrap:anywhere;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1120px;margin:0 auto;padding:24px 20px 48px}
h1{font-size:1.5rem;line-height:1.25;margin:0}
h2{font-size:1.2rem;margin:40px 0 6px;padding-top:14px;border-top:1px solid var(--rule)}
h3{font-size:1rem;margin:22px 0 6px}
p{margin:6px 0;max-width:72ch}
.soft,.note,figcaption+.legend{color:var(--soft)}
.verdict{background:var(--card);border-left:6px solid var(--soft);border-radius:6px;
padding:14px 18px;margin:18px 0}
.verdict.better{border-color:var(--good)}.verdict.worse{border-color:var(--bad)}
.verdict.unclear{border-color:var(--warn)}
.verdict .headline{font-size:1.15rem;font-weight:600;margin:0}
.verdict .evidence{margin:2px 0 10px;max-width:none}
.verdict ul{list-style:none;margin:0;padding:0}
.verdict li{display:grid;grid-template-columns:4.2em 1fr;gap:8px;padding:5px 0;
border-top:1px solid var(--rule)}
.level{font-size:.8rem;font-weight:600;padding-top:2px}
.level.good{color:var(--good)}.level.warn{color:var(--warn)}.level.info{color:var(--soft)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,320px),1fr));gap:18px;
margin:12px 0}
figure{margin:0;background:var(--card);border-radius:6px;padding:12px 12px 8px;max-width:560px;
min-width:0}
figcaption{font-weight:600;font-size:.95rem}
.legend{display:flex;flex-wrap:wrap;gap:2px 14px;font-size:.85rem;margin:2px 0 4px}
.key{display:inline-block;width:10px;height:10px;border-radius:5px;margin-right:5px}
.note{font-size:.85rem;margin:4px 0}
svg{display:block;width:100%;height:auto;overflow:visible}
svg text{fill:var(--soft);font-size:11px}svg text.strong{fill:var(--ink)}
svg text.small{font-size:10px}
svg .grid{stroke:var(--rule);stroke-width:1}
svg .zero{stroke:var(--soft);stroke-width:1}
svg .diagonal{stroke:var(--soft);stroke-width:1;stroke-dasharray:4 3}
svg line{stroke-width:2}svg line.thin{stroke-width:1;opacity:.7}svg .pale{opacity:.4}
svg polyline{fill:none;stroke-width:2}
.s0{stroke:var(--s0);background:var(--s0)}.s1{stroke:var(--s1);background:var(--s1)}
.s2{stroke:var(--s2);background:var(--s2)}.s3{stroke:var(--s3);background:var(--s3)}
svg circle,svg rect{stroke:none}
svg circle.s0,svg rect.s0{fill:var(--s0)}svg circle.s1,svg rect.s1{fill:var(--s1)}
svg circle.s2,svg rect.s2{fill:var(--s2)}svg circle.s3,svg rect.s3{fill:var(--s3)}
.scroll{overflow-x:auto;margin:10px 0;
background:linear-gradient(270deg,var(--paper) 30%,transparent) 100% 0/48px 100% local no-repeat,
linear-gradient(270deg,var(--shade),transparent) 100% 0/20px 100% scroll no-repeat}
table{border-collapse:separate;border-spacing:0;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:5px 12px 5px 0;text-align:right;box-shadow:inset 0 -1px var(--rule);
white-space:nowrap;vertical-align:top}
th{font-weight:600;color:var(--soft)}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:var(--paper)}
tr.main td{font-weight:600}
td small{display:block;color:var(--soft);font-weight:400;font-size:.78rem}
details{margin:10px 0}summary{cursor:pointer;color:var(--soft)}
dl{margin:8px 0}dt{font-weight:600}dd{margin:0 0 8px;max-width:72ch}
@media(max-width:480px){main{padding:16px 14px 40px}h1{font-size:1.25rem}
.verdict{padding:12px 14px}.verdict li{grid-template-columns:1fr;gap:0}
figure{padding:10px 8px 6px}table{font-size:.82rem}th,td{padding-right:9px}}
"""

Cell = str | tuple[str, str]
"""A text, or a text with a smaller one below it."""


def page(title: str, body: Sequence[str]) -> str:
    """A whole document without any script, image or address."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>"
    )


def text(tag: str, content: str, kind: str = "") -> str:
    """An element that holds text only.

    >>> text("p", "a < b", "soft")
    '<p class="soft">a &lt; b</p>'
    """
    return f"<{tag}{_class(kind)}>{escape(content)}</{tag}>"


def element(tag: str, parts: Sequence[str], kind: str = "") -> str:
    """An element that holds elements."""
    return f"<{tag}{_class(kind)}>{''.join(parts)}</{tag}>"


def table(head: Sequence[str], rows: Sequence[Sequence[Cell]], main: int | None = None) -> str:
    """A table that scrolls sideways on a narrow screen; row `main` is in bold."""
    top = element("tr", [f'<th scope="col">{escape(name)}</th>' for name in head])
    body = [
        element("tr", [_cell(cell) for cell in row], "main" if at == main else "")
        for at, row in enumerate(rows)
    ]
    inner = element("table", [element("thead", [top]), element("tbody", body)])
    return f'<div class="scroll" tabindex="0">{inner}</div>'


def details(summary: str, parts: Sequence[str]) -> str:
    """A part that is folded away."""
    return element("details", [text("summary", summary), *parts])


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return text("td", cell)
    value, below = cell
    small = text("small", below) if below else ""
    return f"<td>{escape(value)}{small}</td>"


def _class(kind: str) -> str:
    return f' class="{escape(kind)}"' if kind else ""
