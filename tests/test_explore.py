"""Figures with sliders: static frames that a browser turns over, and their live twins."""

import re
import shutil
import sys
from pathlib import Path

import pytest

from txfm_lite import explore

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
import check_book  # noqa: E402

LABELS = {"slope": "slope of the line", "kind": "kind"}


def line(slope=10, kind="two_words"):
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(3, 2))
    ax.plot([0, 1], [0, slope], clip_on=True)
    return fig, f"A {kind} & slope {slope}."


def page(slope=(1, 10, 1000), kind=("plain", "two_words"), **changes):
    options = dict(title="Lines", alt='A "line"', labels=LABELS, slope=list(slope), kind=list(kind))
    return explore.frames(line, **{**options, **changes})


def test_a_frame_for_every_combination_and_the_default_shown():
    text = page().data
    figures = re.findall(r"<figure( hidden)?>.*?<figcaption>(.*?)</figcaption>", text, flags=re.S)
    assert [caption for _, caption in figures] == [
        f"A {kind} &amp; slope {slope}." for slope in (1, 10, 1000) for kind in ("plain", "two_words")
    ]
    assert [caption for hidden, caption in figures if not hidden] == ["A two_words &amp; slope 10."]
    assert text.count('<svg role="img" aria-label="A &quot;line&quot;"') == 6
    assert "1|10|1,000" in text and "plain|two words" in text


def test_no_id_occurs_twice_and_every_reference_has_its_target():
    text = page().data
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) > 6 and len(set(ids)) == len(ids)
    references = re.findall(r"url\(#([^)]+)\)", text) + re.findall(r'href="#([^"]+)"', text)
    assert references and set(references) <= set(ids)


def test_the_same_choices_give_the_same_bytes_and_nothing_from_elsewhere():
    text = page().data
    assert text == page().data
    assert not re.findall(r'(?:src|href)="(?!#)[^"]+"', text) and "<script" not in text
    assert "<metadata" not in text and "<?xml" not in text
    assert text.count("<style") == 1  # one inside a picture would rule the whole page


def test_figures_are_closed():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    page()
    assert plt.get_fignums() == before


@pytest.mark.parametrize(
    "changes, told",
    [
        (dict(labels={"slope": "x"}), "'kind' has no label"),
        (dict(slope=[1, "10"]), "'slope' should be all numbers or all text"),
        (dict(slope=[1, 2]), "default slope=10 is not among"),
        (dict(slope=range(1, 30)), "Lines: 58 frames"),
    ],
)
def test_choices_that_cannot_be_shown_are_errors(changes, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        page(**changes)


def test_a_page_that_would_grow_too_heavy_is_an_error(monkeypatch):
    monkeypatch.setattr(explore, "MAX_BYTES", 10_000)
    with pytest.raises(ValueError, match="a page should not carry over 10,000"):
        page()


def test_live_controls_draw_on_demand_and_offer_values_in_between(capsys):
    widgets = pytest.importorskip("ipywidgets")
    live = page(live=True)
    slope, kind = live.children[:2]
    assert isinstance(slope, widgets.SelectionSlider) and isinstance(kind, widgets.Dropdown)
    assert (slope.value, kind.value, slope.description) == (10, "two_words", "slope of the line")
    values = [value for _, value in slope.options]
    assert {1, 10, 1000} < set(values) and len(values) > 10 and all(type(v) is int for v in values)
    live.update()
    assert "slope 10" in str(live.out.outputs) + capsys.readouterr().out


def test_values_in_between_keep_their_order_and_spacing():
    assert explore._finer([0.0, 1.0])[4] == 0.5
    assert explore._finer([1, 2]) == [1, 2]  # no fractions of a whole number


@pytest.mark.skipif(not any(map(shutil.which, check_book.BROWSERS)), reason="needs chromium on PATH")
def test_the_keyboard_turns_the_frames_over(tmp_path):
    from playwright.sync_api import sync_playwright

    (tmp_path / "page.html").write_text(f"<!doctype html><html lang=en><body>{page().data}</body></html>")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=check_book.find_browser(), args=check_book.FLAGS)
        for width, scripts in ((900, True), (390, True), (900, False)):
            context = browser.new_context(
                viewport={"width": width, "height": 700}, offline=True, java_script_enabled=scripts
            )
            tab, faults = context.new_page(), []
            tab.on("pageerror", lambda error, faults=faults: faults.append(str(error)))
            tab.goto((tmp_path / "page.html").as_uri())
            caption = tab.locator("figure:visible figcaption")
            assert caption.all_inner_texts() == ["A two_words & slope 10."]
            slider = tab.get_by_label("slope of the line")
            assert slider.is_visible() == scripts  # a control that does nothing is not shown
            if scripts:
                slider.focus()
                tab.keyboard.press("ArrowRight")
                assert caption.all_inner_texts() == ["A two_words & slope 1000."]
                assert slider.get_attribute("aria-valuetext") == "1,000"
                assert tab.locator("output").inner_text() == "1,000"
                tab.get_by_label("kind").select_option("plain")
                assert caption.all_inner_texts() == ["A plain & slope 1000."]
                assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert faults == []
            context.close()
        browser.close()
