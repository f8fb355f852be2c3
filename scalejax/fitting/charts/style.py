"""The style of pages with figures, in light, in dark and on paper."""

# Colours of a page in light, and in dark where the reader's system asks for it.
# Drawings are made for white paper: in the dark their lightness is inverted and their
# hue is kept.
LIGHT = """
  --ink: #1a1d21; --quiet: #5d6470; --alarm: #b3261e; --rule: #e2e5ea; --paper: #ffffff;
  --link: #1f4e79; --notes: #fdf4f3; --drawing: none; --edge: #5d647060;
"""
DARK = """
  --ink: #e6e8eb; --quiet: #a3abb6; --alarm: #ff8d80; --rule: #31373e; --paper: #14171a;
  --link: #8ab8e8; --notes: #2a1c1b; --drawing: invert(.92) hue-rotate(180deg);
  --edge: #a3abb660;
"""
# --scrolls is a background for what scrolls sideways, with a shadow at each edge where
# it goes on. The first two layers scroll along, and cover the shadows at the ends.
COLOURS = f"""
:root {{ color-scheme: light dark; {LIGHT} }}
@media screen and (prefers-color-scheme: dark) {{ :root {{ {DARK} }} }}
:root {{
  --scrolls:
    linear-gradient(to right, var(--paper) 40%, transparent) left / 2rem 100% no-repeat local,
    linear-gradient(to left, var(--paper) 40%, transparent) right / 2rem 100% no-repeat local,
    linear-gradient(to right, var(--edge), transparent) left / .6rem 100% no-repeat scroll,
    linear-gradient(to left, var(--edge), transparent) right / .6rem 100% no-repeat scroll;
}}
body {{ background: var(--paper); color: var(--ink); }}
a {{ color: var(--link); }}
:focus-visible {{ outline: 2px solid var(--link); outline-offset: 2px; }}
"""

# Style of figures. The page defines the colours --ink, --quiet, --rule and --paper;
# --drawing, a filter for what is drawn on white; and --scrolls, a background.
STYLE = """
.chart { margin: 1rem 0 1.6rem; }
.chart .view:not([hidden]) {
  display: grid; grid-template-columns: minmax(0, 56rem) minmax(13rem, 1fr); gap: 0 1.6rem;
}
.plot { position: relative; border-radius: 4px; }
.plot > svg { display: block; width: 100%; height: auto; filter: var(--drawing); }
.chart svg text { font-family: inherit !important; }
.tip {
  position: absolute; z-index: 2; pointer-events: none; white-space: pre-line; width: max-content;
  max-width: min(22rem, 70%); padding: .4rem .6rem; border: 1px solid var(--quiet);
  border-radius: 4px; background: var(--paper); color: var(--ink); font-size: .82rem;
  line-height: 1.35; box-shadow: 0 2px 8px #0003; overflow-wrap: anywhere;
}
.switch { border: 0; margin: 0 0 .5rem; padding: 0; font-size: .9rem; }
.switch legend { float: left; padding: 0; margin-right: .8rem; color: var(--quiet); }
.switch label { margin-right: 1rem; cursor: pointer; }
.switch input { margin: 0 .35rem 0 0; accent-color: var(--link); }
.legend { list-style: none; margin: .6rem 0; padding: 0; font-size: .88rem; }
.legend li { margin: 0; }
.legend button {
  font: inherit; color: inherit; background: none; border: 0; padding: .1rem .2rem;
  text-align: left; cursor: pointer; border-radius: 3px;
}
.legend button[aria-pressed=false] { text-decoration: line-through; color: var(--quiet); }
.legend button[aria-pressed=false] .swatch { opacity: .3; }
.reference { color: var(--quiet); padding: .1rem .2rem; }
.swatch {
  width: 18px; height: 14px; margin-right: .45rem; vertical-align: -2px; filter: var(--drawing);
}
.chart strong { color: var(--ink); }
.files { font-size: .85rem; }
@media (max-width: 56rem) {
  .chart .view:not([hidden]) { display: block; }
  .legend li { display: inline-block; margin-right: .6rem; }
}
@media (max-width: 36rem) {
  .plot > svg { overflow: visible; }
  .plot > svg text { font-size: 11px !important; }
  /* Longer numbers along an axis take the place of its name, which moves outwards. */
  .plot > svg text[transform^="rotate(-90"] { translate: -9px 0; }
  /* Names of rows along an axis have no room to grow: these drawings scroll. */
  .plot.named { overflow-x: auto; background: var(--scrolls); }
  .plot.named > svg { min-width: 30rem; }
  .plot.named > svg text { font-size: 9px !important; }
}
@media print {
  .switch, .files, .tip { display: none; }
  .chart { break-inside: avoid; }
  .chart .view:not([hidden]) { grid-template-columns: minmax(0, 1fr) 11rem; display: grid; }
}
"""
