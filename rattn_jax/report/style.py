"""How the pages look, in light and dark."""

# Colours that people with any kind of colour vision tell apart (Okabe and Ito, 2008), darker or
# lighter where they are on white or on black; dashes and markers say the same.
STYLE = """
:root {
  color-scheme: light dark;
  --ground: #fff; --panel: #f6f7f8; --ink: #1c2024; --faint: #5b6570; --rule: #d5dade;
  --heat: 0, 90, 156; --alarm: #a3260c; --alarm-ground: #fdf0ec;
  --s0: #0065a3; --s1: #b54a00; --s2: #00785a; --s3: #9c4a80; --s4: #7a6400; --s5: #444b52;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #14171a; --panel: #1d2125; --ink: #e6e9ec; --faint: #a0aab4; --rule: #373e45;
    --heat: 86, 180, 233; --alarm: #ff9a80; --alarm-ground: #33201b;
    --s0: #56b4e9; --s1: #f0a35c; --s2: #3ec79b; --s3: #dd9dc3; --s4: #d9c84a; --s5: #c0c7ce;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Liberation Sans", Arial, sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 20px 16px 48px; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 40px 0 8px; padding-top: 12px; border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 24px 0 6px; }
p { margin: 6px 0; max-width: 75ch; }
.faint, figcaption span { color: var(--faint); }
.big { font-size: 1.15rem; margin: 14px 0; }
.big b { font-size: 1.9rem; font-weight: 650; }
.alarm { border-left: 5px solid var(--alarm); background: var(--alarm-ground);
  padding: 10px 14px; margin: 14px 0; max-width: 80ch; }
.alarm b { color: var(--alarm); }
code, .path { font-family: ui-monospace, "Liberation Mono", Menlo, monospace; font-size: .9em;
  overflow-wrap: anywhere; }
details { margin: 10px 0; }
summary { cursor: pointer; padding: 4px 0; }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 6px 0; }
th, td { padding: 4px 12px 4px 0; text-align: right; vertical-align: top; }
td { white-space: nowrap; }
.wraps, .words td { white-space: normal; }
thead th { color: var(--faint); font-weight: 500; border-bottom: 1px solid var(--rule); }
th[scope=row], thead th:first-child { text-align: left; font-weight: 500; }
.words td, .words thead th { text-align: left; overflow-wrap: anywhere; }
.words th { white-space: nowrap; }
.bar { display: inline-block; height: .7em; background: var(--s0); min-width: 1px; }
.bars td:last-child { width: 240px; text-align: left; padding-right: 0; }
td span, .tiles span { white-space: nowrap; }
@media (max-width: 600px) {
  th, td { padding-right: 9px; }
  table { font-size: 14px; }
  .bars td:last-child, .bars th:last-child { display: none; }
}
.charts { display: grid; gap: 20px 28px; grid-template-columns:
  repeat(auto-fill, minmax(min(100%, 260px), 1fr)); }
figure { margin: 0; min-width: 0; }
figcaption { font-weight: 600; }
figcaption span { font-weight: 400; }
.chart svg { width: 100%; height: auto; display: block; }
.chart text { fill: var(--faint); font-size: 12px; }
.grid { stroke: var(--rule); stroke-width: 1; }
.series { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.mark { stroke-width: 1.5; fill: var(--ground); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 0 16px; margin: 2px 0; padding: 0;
  font-size: .87rem; }
.legend li { display: flex; align-items: center; gap: 6px; }
.legend svg { width: 34px; height: 14px; flex: none; }
.c0 { stroke: var(--s0); } .c1 { stroke: var(--s1); } .c2 { stroke: var(--s2); }
.c3 { stroke: var(--s3); } .c4 { stroke: var(--s4); } .c5 { stroke: var(--s5); }
.confusion { font-size: 12px; }
.confusion td, .confusion thead th { width: 30px; min-width: 24px; padding: 3px 2px;
  text-align: center; border: 1px solid var(--ground); }
.confusion thead th { vertical-align: bottom; border-bottom-color: var(--rule); }
.confusion thead th span { writing-mode: vertical-rl; transform: rotate(180deg);
  max-height: 90px; overflow: hidden; }
.confusion th[scope=row] { max-width: 84px; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; padding-right: 6px; }
.confusion .right { outline: 2px solid var(--ink); outline-offset: -3px; font-weight: 600; }
.confusion .none { color: var(--rule); }
.tiles { display: grid; gap: 8px; grid-template-columns: repeat(auto-fill, minmax(76px, 1fr));
  max-width: 800px; font-size: .8rem; line-height: 1.3; }
.tiles.wide { grid-template-columns: repeat(auto-fill, minmax(100px, 1fr)); max-width: 1000px; }
.tiles img { width: 100%; aspect-ratio: 1; display: block; image-rendering: pixelated; }
.tiles.smooth img { image-rendering: auto; }
.tiles figcaption { overflow-wrap: anywhere; }
.matrix { max-width: 100%; height: auto; image-rendering: pixelated; }
""".strip()
