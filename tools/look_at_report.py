"""Look at a report of `armkvm check --html` in a headless browser, wide and narrow.

    python tools/look_at_report.py report.html [--out DIR]

Lays the page out 1280 and 400 CSS pixels wide, in light and in dark colours, everything unfolded,
and complains about what is wider than the page, or than its cell. Pictures of the pages go to DIR.
Needs chromium, which is not among the packages of `.ci/run`: it is large, and what it would
say every time is tested by structure in tests/check/report/test_report.py.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

WIDTHS = (1280, 400)
PART = 2400  # pixels of a picture's height: browsers draw no surface of any height
MOST = 8  # complaints of a kind
LEAST = 500  # a headless window is not narrower than this: the page is in a frame

# The frame is of the page's own origin by srcdoc, so that this script may measure inside.
PAGE = """<!doctype html><meta charset=utf-8><style>body{{margin:0}}iframe{{border:0;display:block;
width:{width}px;height:{height}px;margin-top:-{top}px}}</style>
<iframe srcdoc="{page}"></iframe><pre id=said></pre><script>
const frame = document.querySelector("iframe");
frame.onload = () => {{
  const d = frame.contentDocument, said = {{width: {width}, wide: [], cut: []}};
  for (const e of d.querySelectorAll("details")) e.open = true;
  said.page = d.documentElement.scrollWidth;
  said.height = d.documentElement.scrollHeight;
  const name = e => e.tagName.toLowerCase() + (e.className ? "." + e.className : "")
    + " " + e.textContent.slice(0, 40);
  const over = e => e.scrollWidth > e.clientWidth + 1;
  for (const e of d.body.querySelectorAll("*")) {{
    const box = e.getBoundingClientRect(), style = frame.contentWindow.getComputedStyle(e);
    if (style.clipPath !== "none" || e.closest("thead") && e.closest(".list")) continue;
    if (box.width && box.right > {width} + 1 && !e.closest(".scroll")) said.wide.push(name(e));
    const scrolls = style.overflowX === "auto" || style.overflowX === "scroll";
    if (style.display !== "inline" && e.clientWidth && over(e) && !scrolls
        && ![...e.children].some(over)) said.cut.push(name(e));
    if (scrolls && over(e)) (said.scrolls ??= []).push(
      e.textContent.slice(0, 40) + " " + e.scrollWidth + " in " + e.clientWidth);
  }}
  document.querySelector("#said").textContent = JSON.stringify(said);
}};
</script>"""


def browse(chromium: str, page: Path, *options: str) -> str:
    """Run the browser once."""
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        "--virtual-time-budget=10000", *options, page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def main() -> int:
    """Measure and picture; 1 when something does not fit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("--out", type=Path, default=Path(), help="directory of the pictures")
    parser.add_argument("--parts", type=int, default=3, help="pictures of each page at most")
    args = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        print("there is no chromium (Debian: apt install chromium)", file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    source = html.escape(args.report.read_text(encoding="utf-8"))
    fine = True
    with tempfile.TemporaryDirectory() as scratch:
        page = Path(scratch) / "page.html"
        for width in WIDTHS:
            write(page, source, width, 1000, 0)
            said = measured(browse(chromium, page, "--dump-dom"))
            height = said["height"]
            print(f"{width} px: page {said['page']} wide, {height} high")
            for kind in ("wide", "cut", "scrolls"):
                found = said.get(kind, [])
                for what in found[:MOST]:
                    print(f"  {kind}: {what}")
                if len(found) > MOST:
                    print(f"  {kind}: {len(found) - MOST} more")
            fine &= said["page"] <= width and not said["wide"] and not said["cut"]
            for dark in (False, True):
                theme = ["--blink-settings=preferredColorScheme=0"] if dark else []
                for n in range(min(-(-height // PART), 1 if dark else args.parts)):
                    write(page, source, width, height, n * PART)
                    part = min(PART, height - n * PART)
                    name = f"{args.report.stem}-{width}{'-dark' if dark else ''}-{n}.png"
                    browse(
                        chromium,
                        page,
                        f"--screenshot={args.out / name}",
                        f"--window-size={max(width, LEAST)},{part}",
                        *theme,
                    )
                    print(f"  {args.out / name}")
    return 0 if fine else 1


def write(page: Path, source: str, width: int, height: int, top: int) -> None:
    """The page that holds the report in a frame, from `top` on."""
    page.write_text(PAGE.format(width=width, height=height, top=top, page=source), encoding="utf-8")


def measured(dom: str) -> dict[str, Any]:
    """What the script has found."""
    found = re.search(r"<pre id=\"said\">(.*?)</pre>", dom, re.DOTALL)
    assert found is not None
    said: dict[str, Any] = json.loads(html.unescape(found[1]))
    return said


if __name__ == "__main__":
    sys.exit(main())
