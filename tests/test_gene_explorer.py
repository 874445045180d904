"""The gene explorer in a real browser: keyboard, links, names, tables, narrow screens, both themes."""

import functools
import http.server
import json
import re
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import build_book  # noqa: E402
import check_book  # noqa: E402
import gene_pages as tool  # noqa: E402

from txfm_lite import gene_pages, gene_shards, pretrained  # noqa: E402
from txfm_lite.genes import Resolver, default_resolver  # noqa: E402
from txfm_lite.genesets import GeneSets  # noqa: E402

STATIC = ROOT / "book" / "_static"
PAGE = ROOT / "book" / "gene_explorer.md"
GENES = ["TP53", "KMT2A", "MDM2", "CDKN1A", *[f"G{i:02d}" for i in range(60)]]
TABLE = pd.DataFrame(
    [("7157", "TP53", "P53|LFS1", "ENSG00000141510", "tumor protein p53"),
     ("4297", "KMT2A", "MLL|HRX|Both", "ENSG00000118058", "lysine methyltransferase 2A"),
     ("4193", "MDM2", "HDM2|Both|G07", "ENSG00000135679", "MDM2 proto-oncogene"),
     ("9", "LOST", "Both", "", "a gene that the model lacks")],
    columns=["entrez", "symbol", "synonyms", "ensembl", "description"],
)  # fmt: skip
TYPED = 5  # files of names, at most, that a symbol typed letter by letter asks for
NASTY = '<img src=x onerror=alert(1)> & "quotes", GO:0000001'
browser_needed = pytest.mark.skipif(
    not any(map(shutil.which, check_book.BROWSERS)), reason="needs chromium on PATH"
)


def linear(sets):
    """A completer: fixed random weights."""
    weights = np.random.default_rng(1).normal(size=(len(GENES), len(GENES)))
    return (sets.csr() @ weights / 2).astype(np.float32)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder like the built book: the page's own markup, its script and style, and files of pages."""
    root = tmp_path_factory.mktemp("site")
    rng = np.random.default_rng(0)
    libraries = {
        title: GeneSets.from_lists(
            [
                [*["TP53"][: i % 2], *rng.choice(GENES[1:], n, replace=False)]
                for i, n in enumerate(rng.integers(6, 20, 30))
            ],
            [NASTY if i == 3 else f"{word} {i} (GO:{i:07d})" for i in range(30)], title,
        )
        for title, word in (("Library one", "process"), ("Library two", "A rather long name of a phenotype"))
    }  # fmt: skip
    vectors = {name: pd.DataFrame(rng.normal(size=(65, 5)), [*GENES, "NOPAGE"]) for name in ("TxFM", "GSFM")}
    source = {"licence": "CC BY 4.0", "link": "https://example.org/{}", "id": r"GO:\d+"}
    gene_pages.build(
        linear, GENES, libraries, root / "gene_pages", gene_vectors=vectors, resolver=Resolver(TABLE),
        sources={"Library one": source}, model="linear", examples=["TP53", "G01"], fingerprint="x",
    )  # fmt: skip
    (root / "_static").mkdir()
    for name in ("gene_explorer.js", "gene_explorer.css", "book.css"):
        shutil.copy(STATIC / name, root / "_static")
    import pydata_sphinx_theme
    import sphinx_book_theme

    themes = [Path(m.__file__).parent / "theme" for m in (pydata_sphinx_theme, sphinx_book_theme)]
    styles = [next(t.rglob(f"styles/{t.parent.name.replace('_', '-')}.css")) for t in themes]
    for style in styles:
        shutil.copy(style, root / "_static")
    heads = "".join(
        f'<link rel="stylesheet" href="../_static/{s.name}">' for s in [*styles, STATIC / "book.css"]
    )
    (body,) = re.findall(r"```\{raw\} html\n(.*?)```", PAGE.read_text(encoding="utf8"), flags=re.S)
    static = tool.examples(gene_shards.manifest(root / "gene_pages"), root / "gene_pages")
    (root / "book").mkdir()
    (root / "book" / "gene_explorer.html").write_text(
        '<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf8"><title>x</title>'
        f'{heads}<link rel="icon" href="data:,">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"></head><body>'
        '<main class="bd-content" style="max-width: 60rem; padding: 0 .7rem"><article class="bd-article">'
        f'<section id="gene-explorer"><h1>Gene explorer</h1>{body}{static}</section>'
        "</article></main></body></html>",
        encoding="utf8",
    )
    return root


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=check_book.find_browser(), args=check_book.FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(site, browser):
    """Open the page, from the disk unless an address is given; complaints of the browser fail the test."""
    contexts, heard = [], []

    def open_(tail="", width=1200, address=None, **options):
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda m: heard.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("requestfailed", lambda request: heard.append(request.url))
        page.goto((address or (site / "book" / "gene_explorer.html").as_uri()) + tail)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert heard == []


def shown(page, gene):
    """Wait for a gene's page."""
    page.wait_for_selector(f".ge-gene:has-text('{gene}')")
    return page


def terms(page, library=0, key="term"):
    """Return one column of a library's table as it is shown."""
    return page.locator(".ge-library").nth(library).locator(f"tbody [data-key={key}]").all_inner_texts()


def test_everything_fits_the_budget(site):
    sizes = {path.name: path.stat().st_size for path in (site / "gene_pages").iterdir()}
    largest = [
        max(size for name, size in sizes.items() if name.startswith(kind)) for kind in ("names", "shard")
    ]
    ours = sum((STATIC / name).stat().st_size for name in ("gene_explorer.js", "gene_explorer.css"))
    assert sizes["manifest.js"] + sum(largest) + ours < gene_shards.BUDGET
    # at their largest, too, for a symbol that is typed letter by letter
    assert 5000 + TYPED * gene_shards.NAMES + gene_shards.SHARD + ours < gene_shards.BUDGET


def test_no_symbol_typed_letter_by_letter_asks_for_many_files_of_names(local_data):
    """With the names of all genes of the shipped model, as the script of the page would ask for them."""
    genes = (pretrained.SHIPPED / "gsfm-xs" / "vocab.txt").read_text().split()[2:]
    cut = list(gene_shards._by_alphabet(genes, gene_shards._names(genes, default_resolver())))
    starts = [first for first, _ in cut]
    assert max(len(gene_shards._json(data)) for _, data in cut) <= gene_shards.NAMES
    upper = sorted(name.upper() for _, data in cut for name in [*data["symbols"], *data["aliases"][::2]])
    names = pd.Series(upper)

    def asked(prefix):
        first = max(np.searchsorted(starts, prefix, side="right") - 1, 0)
        found, i = 0, first
        while True:
            end = starts[i + 1] if i + 1 < len(starts) else "~"
            low, high = np.searchsorted(names, [max(prefix, starts[i]), min(prefix + "~", end)])
            found += max(high - low, 0)
            if found >= 12 or i + 1 == len(starts) or not starts[i + 1].startswith(prefix):
                return set(range(first, i + 1))
            i += 1

    for gene in genes:
        typed = set().union(*(asked(gene.upper()[:n]) for n in range(1, len(gene) + 1)))
        assert 1 <= len(typed) <= TYPED, gene


def test_a_small_build_says_that_it_is_simulated_and_is_kept(tmp_path, capsys):
    shutil.copytree(ROOT / "book", tmp_path / "book", ignore=shutil.ignore_patterns("_static"))
    folder = tool.make(tmp_path, "smoke")
    first = capsys.readouterr().out
    assert "from simulated sets, because a small profile was asked for" in first
    assert tool.make(tmp_path, "smoke") == folder and "unchanged, kept" in capsys.readouterr().out
    page = tmp_path / "book" / "gene_explorer.md"
    tool.fill(page, folder)
    text = page.read_text(encoding="utf8")
    assert "<!-- genes" not in text and "say nothing about biology" in text
    facts = gene_shards.manifest(folder)
    assert all(f"<td>{gene}</td>" in text for gene in facts["examples"])
    assert all(f"| {x['title']} | {x['terms']} |" in text for x in facts["libraries"])
    assert all(x["auroc"] > 0.6 for x in facts["libraries"])  # the stand-in does learn the modules


def test_the_files_are_placed_into_the_book_and_replaced_by_newer_ones(tmp_path):
    old, new = tmp_path / "html" / "gene_pages", tmp_path / "made"
    old.mkdir(parents=True)
    new.mkdir()
    (old / "manifest.js").write_text("1")
    (old / "shard-9.js").write_text("of the older files")
    (new / "manifest.js").write_text("2")
    build_book.place(new, tmp_path / "html")
    assert [path.name for path in old.iterdir()] == ["manifest.js"]
    assert (old / "manifest.js").read_text() == "2"
    (old / "shard-0.js").write_text("kept, since the manifest is the same")
    build_book.place(new, tmp_path / "html")
    assert (old / "shard-0.js").exists()


def test_no_library_is_shown_whose_terms_forbid_it():
    from txfm_lite import manifests

    parts = manifests.read(tool.DATASET).parts
    restricted = {name for name, part in parts.items() if "restricted" in part.note}
    assert restricted and restricted <= set(tool.LEFT_OUT)
    assert set(tool.LINKS) == set(parts) - set(tool.LEFT_OUT)


@browser_needed
def test_typing_arrows_and_enter_show_a_gene(visit):
    page = visit()
    box = page.get_by_role("combobox", name="gene")
    box.press_sequentially("g0")
    page.wait_for_selector("[role=option]")
    assert box.get_attribute("aria-expanded") == "true"
    names = page.locator("[role=option]").all_inner_texts()
    assert names == [f"G0{i}" for i in range(10)] + ["G07 alias of MDM2"]
    box.press("ArrowDown")
    box.press("ArrowDown")
    assert page.locator("[aria-selected=true]").inner_text() == "G01"
    assert box.get_attribute("aria-activedescendant") == page.locator("[aria-selected=true]").get_attribute(
        "id"
    )
    box.press("ArrowUp")
    box.press("ArrowUp")
    assert page.locator("[aria-selected=true]").inner_text() == names[-1]
    box.press("ArrowDown")
    box.press("Enter")
    shown(page, "G00")
    assert page.url.endswith("#gene=G00") and page.locator("#ge-options").is_hidden()
    assert page.locator("[role=status]").inner_text().startswith("G00: ")
    assert page.locator("#ge-app").get_attribute("data-first-milliseconds").isdigit()


@browser_needed
def test_a_slow_or_large_result_is_a_fault_of_the_book(visit, site, monkeypatch):
    page = visit()
    assert check_book.explore(page, site) == []
    monkeypatch.setattr(check_book, "SLOW", -1)
    monkeypatch.setattr(gene_shards, "BUDGET", 25_000)  # script and style alone
    faults = check_book.explore(page, site)
    assert len(faults) == 3 and "ms, more than -1" in faults[-1]
    assert "TP53" in faults[0] and "in 5 files, more than 25,000" in faults[0]


@browser_needed
def test_escape_closes_the_list_then_empties_the_field(visit):
    page = visit()
    box = page.get_by_role("combobox")
    box.press_sequentially("tp")
    page.wait_for_selector("[role=option]")
    box.press("Escape")
    assert page.locator("#ge-options").is_hidden() and box.input_value() == "tp"
    box.press("Escape")
    assert box.input_value() == ""


@browser_needed
def test_the_field_shows_its_focus(visit):
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "ge-name"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


@browser_needed
def test_the_page_holds_what_the_files_hold(visit, site):
    page = shown(visit("#gene=tp53"), "TP53")
    table = gene_shards.read(site / "gene_pages", "TP53")
    table = table[table["library"] == "Library one"].sort_values("logit", ascending=False)
    page.get_by_role("button", name="show all").first.click()
    assert [t.rpartition(" genes")[0].rpartition(" ")[0].strip() for t in terms(page)] == table[
        "term"
    ].tolist()
    assert [float(x) for x in terms(page, key="z")] == pytest.approx(table["z"].round(2).tolist())
    assert [int(x) for x in terms(page, key="rank")] == table["rank"].tolist()
    auroc = ["–" if np.isnan(x) else f"{x:.3f}" for x in table["auroc"]]
    assert terms(page, key="auroc") == auroc and "–" in auroc
    status = ["● known" if known else "○ new" for known in table["known"]]
    assert terms(page, key="status") == status
    note = page.locator(".ge-library").first.locator(".ge-note").first.inner_text()
    assert f"10 of 15 known, {(~table['known']).sum()} of" in note and "CC BY 4.0" in note


@browser_needed
def test_links_lead_to_the_gene_its_terms_and_its_neighbours(visit):
    page = shown(visit("#gene=TP53"), "TP53")
    addresses = page.eval_on_selector_all(".ge-links a", "links => links.map(a => a.href)")
    assert "https://www.ncbi.nlm.nih.gov/gene/7157" in addresses
    assert "https://www.ensembl.org/id/ENSG00000141510" in addresses
    first = page.locator(".ge-library").first.locator("tbody a").first
    assert re.fullmatch(r"https://example\.org/GO%3A\d{7}", first.get_attribute("href"))
    assert page.locator(".ge-library").nth(1).locator("tbody a").count() == 0
    neighbour = page.locator(".ge-near a").first.inner_text()
    page.locator(".ge-near a").first.click()
    shown(page, neighbour)
    page.go_back()
    shown(page, "TP53")
    assert page.locator(".ge-near div").count() == 2 and page.locator(".ge-near li").count() == 30


@browser_needed
@pytest.mark.parametrize("tail", ["?gene=MLL", "#gene=mll"])
def test_a_deep_link_finds_an_alias_in_any_case(visit, tail):
    page = shown(visit(tail), "KMT2A")
    assert "“MLL” is another name of KMT2A." in page.locator(".ge-result").inner_text()


@browser_needed
def test_an_ambiguous_alias_offers_all_its_genes(visit):
    page = visit("#gene=both")
    message = page.locator(".ge-message")
    message.wait_for()
    assert message.inner_text() == "“Both” stands for several genes: KMT2A, LOST (no page), MDM2."
    message.get_by_role("link", name="MDM2").click()
    shown(page, "MDM2")


@browser_needed
def test_a_symbol_beats_an_alias_and_says_so(visit):
    page = shown(visit("#gene=G07"), "G07")
    assert "G07 is also another name of MDM2." in page.locator(".ge-result").inner_text()


@browser_needed
@pytest.mark.parametrize("name", ["XYZZY", "<b>&", "%", "0"])
def test_an_unknown_name_is_told_so(visit, name):
    page = visit()
    page.get_by_role("combobox").fill(name)
    page.get_by_role("button", name="show").click()
    page.locator(".ge-message").wait_for()
    assert f"No page for “{name}”: none of the 64 genes" in page.locator(".ge-message").inner_text()


@browser_needed
def test_tables_sort_by_every_column(visit):
    page = shown(visit("#gene=TP53"), "TP53")
    page.get_by_role("button", name="show all").first.click()
    for key, first in (("z", -1), ("rank", 1), ("uniqueness", -1), ("auroc", -1), ("term", 1)):
        head = page.locator(".ge-library").first.locator("thead button").nth(
            ["term", "probability", "z", "rank", "status", "auroc", "uniqueness"].index(key)
        )  # fmt: skip
        for direction in (first, -first):
            head.focus()
            page.keyboard.press("Enter")
            cells = terms(page, key=key)
            if key == "auroc":
                dashes = [cell == "–" for cell in cells]
                assert dashes == sorted(dashes)  # missing values come last either way
                cells = [cell for cell in cells if cell != "–"]
            if key != "term":
                values = [float(cell) for cell in cells]
                assert values == sorted(values, reverse=direction < 0)
            else:
                numbers = [int(re.findall(r"GO:(\d+)", c)[0]) for c in cells if c.startswith("process")]
                assert numbers == sorted(numbers, reverse=direction < 0)
            word = "ascending" if direction > 0 else "descending"
            assert page.locator(f"th[aria-sort={word}]").count() == 2  # one per library
            assert page.evaluate("document.activeElement.textContent") == head.inner_text().rstrip(" ▲▼")


@browser_needed
def test_tables_filter_by_text_and_by_kind(visit):
    page = shown(visit("#gene=TP53"), "TP53")
    page.locator(".ge-kind").select_option("new")
    assert set(terms(page, key="status")) == {"○ new"}
    page.locator(".ge-kind").select_option("known")
    assert set(terms(page, key="status")) == {"● known"}
    page.locator(".ge-filter").fill("PHENOTYPE")
    assert terms(page) == [] and "No term fits the filter." in page.locator(".ge-library").first.inner_text()
    assert terms(page, 1)
    page.locator(".ge-filter").fill("")
    page.locator(".ge-sort").select_option("z")
    values = [float(x) for x in terms(page, key="z")]
    assert len(values) == 8 and values == sorted(values, reverse=True)


@browser_needed
def test_names_are_text_whatever_they_hold(visit, site):
    pages = {gene: gene_shards.read(site / "gene_pages", gene) for gene in GENES}
    gene = next(gene for gene, table in pages.items() if NASTY in set(table["term"]))
    page = shown(visit(f"#gene={gene}"), gene)
    page.locator(".ge-filter").fill("onerror")
    assert any(term.startswith(NASTY) for library in (0, 1) for term in terms(page, library))
    assert page.locator(".ge-result img").count() == 0


@browser_needed
def test_predictions_are_downloaded_as_csv_and_json(visit, site, tmp_path):
    page = shown(visit("#gene=KMT2A"), "KMT2A")
    expected = gene_shards.read(site / "gene_pages", "KMT2A")
    for kind in ("csv", "json"):
        with page.expect_download() as download:
            page.get_by_role("button", name=f"download {kind.upper()}").click()
        assert download.value.suggested_filename == f"KMT2A.{kind}"
        download.value.save_as(tmp_path / f"x.{kind}")
    table = pd.read_csv(tmp_path / "x.csv")
    whole = json.loads((tmp_path / "x.json").read_text())
    assert whole["entrez"] == "4297" and whole["about"]["model"] == "linear" and len(whole["neighbours"]) == 2
    for found in (table, pd.DataFrame(whole["terms"])):
        assert found["term"].tolist() == expected["term"].tolist()
        assert (found["status"] == "known").tolist() == expected["known"].tolist()
        columns = ["probability", "logit", "z", "rank", "size", "auroc", "uniqueness"]
        np.testing.assert_allclose(found[columns].astype(float), expected[columns].astype(float), atol=1e-9)


@browser_needed
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_it_fits_the_window_and_is_legible(visit, theme, width):
    page = shown(visit("#gene=TP53", width=width), "TP53")
    page.get_by_role("combobox", name="gene").fill("g")
    page.wait_for_selector("[role=option]")
    assert check_book.inspect(page, theme) == []
    ratios = page.evaluate(CONTRAST)
    assert len(ratios) > 100
    assert [r for r in ratios if r["ratio"] < 4.5] == []
    assert page.locator(".ge-table thead").first.is_visible() == (width > 700)


# The contrast of every text with what lies behind it, by the formula of the accessibility guidelines.
CONTRAST = """() => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const linear = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = e => {
    if (!e) return [255, 255, 255];
    const c = numbers(getComputedStyle(e).backgroundColor);
    return c.length === 3 || c[3] === 1 ? c : behind(e.parentElement);
  };
  const texts = [...document.querySelectorAll('#ge-app *')].filter(e => e.offsetParent !== null
    && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
  return texts.map(e => {
    const [a, b] = [light(numbers(getComputedStyle(e).color)), light(behind(e))];
    return {text: e.textContent, ratio: (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)};
  });
}"""


@browser_needed
def test_it_works_over_http_and_asks_for_few_bytes(visit, site):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/book/gene_explorer.html"
        page = shown(visit("?gene=TP53", address=address), "TP53")
        asked = page.evaluate(
            "performance.getEntriesByType('resource').map(e => [e.name, e.decodedBodySize])"
        )
        server.shutdown()
    assert all(name.startswith(address.removesuffix("book/gene_explorer.html")) for name, _ in asked)
    files = [(name, size) for name, size in asked if "/gene_pages/" in name]
    assert len(files) == 3 and 0 < sum(size for _, size in files) < gene_shards.BUDGET


@browser_needed
def test_without_javascript_the_page_says_so_and_shows_examples(visit, site):
    page = visit(java_script_enabled=False)
    assert "JavaScript is off" in page.locator("noscript").inner_text()
    table = page.locator(".ge-static table")
    assert table.is_visible()
    assert table.locator("tbody tr").count() == 8  # two genes, two libraries, two terms
    assert "TP53" in table.inner_text()
    assert visit().locator(".ge-static").is_hidden()


@browser_needed
def test_without_its_files_the_page_says_how_to_make_them(site, browser, tmp_path):
    shutil.copytree(site, tmp_path / "site", ignore=shutil.ignore_patterns("gene_pages"))
    page = browser.new_page()
    page.goto((tmp_path / "site" / "book" / "gene_explorer.html").as_uri() + "#gene=TP53")
    page.wait_for_function("document.querySelector('[role=status]').textContent.includes('make gene-pages')")
    page.close()
