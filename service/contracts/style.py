"""The looks of the page: light and dark, wide and narrow, without anything from elsewhere."""

from __future__ import annotations

import base64
import hashlib

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --quiet: #62696f; --paper: #fff; --panel: #f5f6f7; --line: #dcdfe2;
  --accent: #0b5cad; --in: #1a7f4b; --out: #8a4b08; --code: #eef0f2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e6e8; --quiet: #9aa2a9; --paper: #15181b; --panel: #1c2024;
  --line: #33393f; --accent: #7db8f5; --in: #5fcb94; --out: #e0a667; --code: #262b30; } }
* { box-sizing: border-box; }
html { scroll-padding-top: 1rem; }
body { margin: 0; color: var(--ink); background: var(--paper); font: 15px/1.55 system-ui, sans-serif; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
a:focus-visible, summary:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.frame { display: grid; grid-template-columns: 17rem minmax(0, 1fr); max-width: 90rem; margin: 0 auto; }
nav { position: sticky; top: 0; align-self: start; max-height: 100vh; overflow-y: auto; padding: 1.5rem 1rem 2rem;
  border-right: 1px solid var(--line); font-size: 13.5px; }
nav ul { list-style: none; margin: 0 0 .8rem; padding: 0; }
nav li { padding: .1rem 0; }
nav li.inner { padding-left: .9rem; }
nav p { margin: .9rem 0 .2rem; font-weight: 600; }
nav p.part { font-size: 15px; }
main { padding: 1.5rem 2.2rem 5rem; min-width: 0; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: .4rem 0 .6rem; }
h2 { font-size: 1.35rem; margin: 3rem 0 .8rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1.1rem; margin: 1.9rem 0 .3rem; overflow-wrap: anywhere; }
h4 { font-size: .8rem; margin: 1.3rem 0 .4rem; letter-spacing: .04em; text-transform: uppercase; color: var(--quiet); }
p { margin: .4rem 0 .7rem; max-width: 48rem; }
code, pre { font: 12.5px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; }
code { background: var(--code); padding: .08em .32em; border-radius: 3px; overflow-wrap: anywhere; }
pre { margin: .4rem 0 1rem; padding: .8rem 1rem; background: var(--panel); border: 1px solid var(--line);
  border-radius: 5px; overflow-x: auto; max-width: 60rem; }
pre code { background: none; padding: 0; overflow-wrap: normal; }
table { width: 100%; border-collapse: collapse; margin: .4rem 0 1.2rem; font-size: 13.5px; line-height: 1.45; }
th { text-align: left; font-weight: 600; color: var(--quiet); border-bottom: 1px solid var(--line);
  padding: .3rem .7rem .3rem 0; }
td { vertical-align: top; border-bottom: 1px solid var(--line); padding: .4rem .7rem .4rem 0; }
td:nth-child(1) { white-space: nowrap; }
td:nth-child(4) { min-width: 14rem; }
td:nth-child(1) code { overflow-wrap: normal; }
.limit { display: block; }
.parent, .quiet { color: var(--quiet); }
details { margin: .5rem 0; }
summary { cursor: pointer; padding: .15rem 0; }
.tag { display: inline-block; min-width: 4.2em; padding: 0 .5em; margin-right: .6em; border-radius: 3px;
  color: var(--paper); background: var(--quiet); font: 600 11.5px/1.8 system-ui, sans-serif; text-align: center;
  text-transform: uppercase;
  vertical-align: .12em; }
.tag.receive, .tag.post, .tag.put { background: var(--in); }
.tag.send, .tag.get { background: var(--accent); }
.tag.delete { background: var(--out); }
.meta { color: var(--quiet); font-size: 13.5px; margin: .2rem 0; }
@media (max-width: 60rem) {
  .frame { display: block; }
  nav { position: static; max-height: none; border-right: 0; border-bottom: 1px solid var(--line);
    padding: 1rem 1.1rem; }
  nav ul { columns: 2; }
  nav li { break-inside: avoid; overflow-wrap: anywhere; }
  main { padding: 1rem 1.1rem 4rem; }
}
@media (max-width: 44rem) {
  thead { position: absolute; clip-path: inset(50%); }
  tr { display: block; padding: .5rem 0; border-bottom: 1px solid var(--line); }
  td, td:nth-child(1) { display: block; border: 0; padding: .1rem 0; white-space: normal; min-width: 0; }
  td:empty { display: none; }
  td:not(:first-child)::before { content: attr(data-label) ": "; color: var(--quiet); }
  td:nth-child(1) code { overflow-wrap: anywhere; }
  .limit { display: inline; }
  .limit + .limit::before { content: "; "; }
}
@media print { nav { display: none; } .frame { display: block; } }
"""


def style_source() -> str:
    """What a Content-Security-Policy names in `style-src`, so that the page keeps its looks and no other is let in."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'"
