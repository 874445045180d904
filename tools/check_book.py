"""Look at every page of the built book in a browser: wide and narrow, light and dark, without any network.

python tools/check_book.py [--html _build/html] [--screenshots DIR]

A fault is: a console error or an uncaught exception; a file that does not load, or one that would come from
the network; a link or anchor inside the book that leads nowhere; an image without pixels or without
alternative text; a formula that MathJax could not set; a page wider than its window (tables and code may
scroll in their own box). Some genes are typed into the gene explorer, letter by letter: it is a fault if the
first result takes more than a second, or a gene more bytes than it may. Exit 1 if there is any.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

from playwright.sync_api import Page, sync_playwright

from txfm_lite import gene_shards

WIDTHS = (1280, 390)  # a laptop, a telephone
THEMES = ("light", "dark")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

EXPLORER, SLOW = "book/gene_explorer.html", 1000  # milliseconds to the first result
REDIRECT = 'http-equiv="Refresh"'  # index.html only sends the reader on to the first page

# What only the browser knows about a page, as one list of texts.
INSPECT = """() => {
  const faults = [];
  for (const image of document.images) {
    if (!image.complete || image.naturalWidth === 0) faults.push(`image does not show: ${image.src}`);
    if (/^$|\\.(png|svg|jpe?g|gif)$/.test(image.alt)) // an output without one gets its file's name
      faults.push(`image without alternative text: ${image.src}`);
  }
  for (const bad of document.querySelectorAll('mjx-merror, [data-mjx-error]'))
    faults.push(`formula: ${bad.getAttribute('data-mjx-error') || bad.textContent}`);
  const formulae = document.querySelectorAll('.math').length;
  if (formulae && !document.querySelector('mjx-container')) faults.push(`${formulae} formulae, none set`);
  const room = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > room) {
    const scrolls = e => e && (getComputedStyle(e).overflowX !== 'visible' || scrolls(e.parentElement));
    const right = e => e.getBoundingClientRect().right;
    const spills = e => e.clientWidth && e.scrollWidth > e.clientWidth + 1 || right(e) > room + 1;
    const wide = [...document.querySelectorAll('body *')].filter(e => spills(e) && !scrolls(e));
    const names = wide.reverse().slice(0, 3).map(e => e.tagName.toLowerCase() + '.' + e.className);
    faults.push(`page is ${document.documentElement.scrollWidth} px wide: ${names.join(', ')}`);
  }
  return faults;
}"""
# The theme's own switch sets the same attribute.
SHOW = """theme => {
  document.documentElement.dataset.theme = theme;
  for (const image of document.images) image.loading = 'eager';
  for (const folded of document.querySelectorAll('details')) folded.open = true;
}"""
LINKS = "() => [...document.querySelectorAll('a[href]')].map(a => a.href)"
IDS = "() => [...document.querySelectorAll('[id]')].map(e => e.id)"
SETTLED = "() => !window.MathJax?.startup?.promise || window.MathJax.startup.promise.then(() => true)"


def find_browser() -> str:
    """Return the browser's path; exit with advice if there is none."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        sys.exit(
            f"check-book needs a browser on PATH ({' or '.join(BROWSERS)}); on Debian: apt install chromium"
        )
    return found


def inspect(page: Page, theme: str) -> list[str]:
    """Show the open page in one theme, with all that is folded unfolded, and return its faults."""
    page.evaluate(SHOW, theme)
    page.wait_for_function("() => [...document.images].every(image => image.complete)")
    return page.evaluate(INSPECT)


def explore(page: Page, html: Path) -> list[str]:
    """Type the example genes into the gene explorer, and return what is slow or large."""
    faults: list[str] = []
    took: list[int] = []
    asked: set[Path] = set()
    page.on("request", lambda request: asked.add(Path(unquote(urlparse(request.url).path))))
    for gene in gene_shards.manifest(html / "gene_pages")["examples"]:
        page.goto("about:blank")  # or else only what stands behind # would change
        asked.clear()
        page.goto((html / EXPLORER).as_uri())
        box = page.get_by_role("combobox", name="gene")
        box.press_sequentially(gene)
        box.press("Enter")
        page.wait_for_selector(f".ge-gene:has-text('{gene}')")
        took.append(int(page.locator("#ge-app").get_attribute("data-first-milliseconds")))
        kinds = ("gene_explorer.js", "gene_explorer.css")
        ours = [path for path in asked if path.parent.name == "gene_pages" or path.name in kinds]
        size = sum(path.stat().st_size for path in ours)
        if size > gene_shards.BUDGET:
            faults.append(f"{gene}: {size:,} bytes in {len(ours)} files, more than {gene_shards.BUDGET:,}")
    if took and statistics.median(took) > SLOW:  # other work on the machine may slow one of them
        faults.append(f"first results took {', '.join(map(str, took))} ms, more than {SLOW}")
    return faults


def dead_links(links: dict[str, list[str]], ids: dict[str, set[str]]) -> list[str]:
    """Return the links that lead to no file of the book or to no anchor of its page."""
    faults = []
    for address, targets in links.items():
        for target in sorted(set(targets)):
            path, anchor = urldefrag(target)
            if not path.startswith("file:"):
                continue
            if not Path(unquote(path.removeprefix("file://"))).exists():
                faults.append(f"{address}: dead link {target}")
            elif anchor and path in ids and unquote(anchor) not in ids[path]:
                faults.append(f"{address}: link to a missing anchor {target}")
    return faults


def check(html: Path, screenshots: Path | None) -> list[str]:
    """Visit all pages and return all faults."""
    pages = sorted(
        p for p in html.rglob("*.html") if "_static" not in p.parts and REDIRECT not in p.read_text()
    )
    faults: list[str] = []
    links: dict[str, list[str]] = {}
    ids: dict[str, set[str]] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=FLAGS)
        for width in WIDTHS:
            context = browser.new_context(viewport={"width": width, "height": 900}, offline=True)
            page, heard = context.new_page(), []
            page.on(
                "console", lambda m, heard=heard: heard.extend([f"console: {m.text}"] * (m.type == "error"))
            )
            page.on("pageerror", lambda error, heard=heard: heard.append(f"exception: {error}"))
            page.on("requestfailed", lambda r, heard=heard: heard.append(f"does not load: {r.url}"))
            for path in pages:
                name = path.relative_to(html).as_posix()
                page.goto(path.as_uri())
                page.evaluate(SETTLED)
                for theme in THEMES:
                    heard += inspect(page, theme)
                    faults += [f"{name} ({width} px, {theme}): {fault}" for fault in heard]
                    heard.clear()
                    if screenshots:
                        shot = f"{name.removesuffix('.html').replace('/', '-')}-{width}-{theme}.png"
                        page.screenshot(path=screenshots / shot, full_page=True)
                links[name] = page.evaluate(LINKS)
                ids[page.url.split("#")[0]] = set(page.evaluate(IDS))
            if (html / EXPLORER).exists():
                faults += [f"{EXPLORER} ({width} px): {fault}" for fault in [*explore(page, html), *heard]]
            context.close()
        browser.close()
    print(f"looked at {len(pages)} pages, {len(WIDTHS)} widths, {len(THEMES)} themes")
    return faults + dead_links(links, ids)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    built = Path(__file__).resolve().parents[1] / "_build" / "html"
    parser.add_argument("--html", type=Path, default=built, help="the built book")
    parser.add_argument(
        "--screenshots", type=Path, help="a folder for a picture of every page, width and theme"
    )
    args = parser.parse_args()
    if not (args.html / "index.html").exists():
        print(f"{args.html} holds no book: run `make book` first")
        return 1
    if args.screenshots:
        args.screenshots.mkdir(parents=True, exist_ok=True)
    faults = check(args.html.resolve(), args.screenshots)
    print("\n".join(sorted(set(faults))) if faults else "no fault found")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
