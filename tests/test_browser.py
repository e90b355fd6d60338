"""Pages in a real browser: narrow and wide, light and dark, by mouse and by keys. Skipped where there is none."""

from __future__ import annotations

import io
import shutil

import numpy as np
import pytest
from PIL import Image

import regraft
from regraft.evaluation.multiclass import evaluate
from regraft.report.evaluation_page import Page, render_page

NARROW, WIDE = 390, 1280
COMMAND = "regraft evaluate model photos --report page.html"


@pytest.fixture(scope="module")
def chromium():
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if not path:
        pytest.skip("there is no Chromium on this machine: apt-get install chromium")
    with api.sync_playwright() as started:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = started.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


KINDS = ("Inspection", "Audit", "Comparison", "Tuned", "Sweep", "Prediction", "Report", "Features", "History")


@pytest.fixture(scope="module")
def pages(results, tmp_path_factory):
    """A folder with a page of every kind, and a notebook's cell."""
    folder = tmp_path_factory.mktemp("pages")
    for name, result in results.items():
        (folder / f"{name}.html").write_text(result.html(COMMAND), "utf-8")
    (folder / "notebook.html").write_text(f"<h1>notebook</h1>{results['Report']._repr_html_()}", "utf-8")
    return folder


@pytest.fixture
def opened(chromium, pages):
    """Open a page of a width, light or dark; nothing but the file itself is asked for, and no script complains."""
    contexts, asked, complaints = [], [], []

    def open_page(name, width=WIDE, scheme="light"):
        contexts.append(chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme))
        tab = contexts[-1].new_page()
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("console", lambda message: complaints.append(message.text))
        tab.goto((pages / f"{name}.html").as_uri())
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert not [url for url in asked if not url.startswith(("file:", "data:", "about:"))]
    assert complaints == []


def brightness(element):
    """Return the grey of each pixel that is shown, 0 to 255."""
    return np.asarray(Image.open(io.BytesIO(element.screenshot())).convert("L"))


@pytest.mark.parametrize("name", KINDS)
def test_a_narrow_page_has_nothing_beyond_its_edge(opened, name):
    tab = opened(name, NARROW)
    for summary in tab.locator("details.list > summary, details.made > summary").all():
        summary.click()
    assert tab.evaluate("document.documentElement.scrollWidth") <= NARROW
    beyond = """[...document.querySelectorAll("main *")].filter(each =>
        each.getClientRects().length && !each.closest(".matrix") && !each.closest("thead")
        && each.getBoundingClientRect().right > innerWidth).map(each => each.outerHTML.slice(0, 200))"""
    assert tab.evaluate(beyond) == []


@pytest.mark.parametrize("name", ["Report", "Comparison", "Sweep"])
def test_a_dark_page_is_dark_with_its_charts(opened, name):
    for scheme, is_background in (("light", lambda grey: grey > 230), ("dark", lambda grey: grey < 50)):
        tab = opened(name, WIDE, scheme)
        assert is_background(np.median(brightness(tab)))
        for chart in tab.locator(".picture").all():
            grey = brightness(chart)
            assert is_background(np.median(grey)), "the chart's background is the page's"
            assert np.ptp(grey.astype(int)) > 120, "its text and lines can be read"


@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_a_chart_is_drawn_for_the_width_of_the_page(opened, width):
    chart = opened("History", width).locator(".picture img").first
    natural, shown = chart.evaluate("image => [image.naturalWidth, image.getBoundingClientRect().width]")
    assert 0.8 < shown / natural < 1.6, "its text is as large as the page's small print"


def test_on_a_narrow_page_each_cell_of_a_table_stands_under_its_title(opened):
    tab = opened("Report", NARROW)
    cells = tab.locator("section[aria-labelledby=classes] tbody tr").first.locator("td")
    titles = [cell.evaluate("cell => getComputedStyle(cell, '::before').content") for cell in cells.all()]
    assert [title.strip('"').replace("\N{NO-BREAK SPACE}", " ") for title in titles] == [
        *("Images", "Precision %", "Recall %", "95 %", "F1 %")
    ]
    assert all(cell.is_visible() for cell in cells.all())


def test_a_large_matrix_has_a_line_for_each_class_and_can_be_scrolled_by_keys(opened, pages):
    names = [f"class_{number}_with_a_long_name_of_its_own" for number in range(30)]
    measures = evaluate(np.eye(30)[np.arange(60) % 30], np.arange(60) % 30, names)
    (pages / "matrix.html").write_text(
        render_page(Page(title="Thirty", evaluation=measures, part="test part")), "utf-8"
    )
    tab = opened("matrix", NARROW)
    rows = tab.locator(".matrix tbody tr")
    assert rows.count() == 30 and all(row.bounding_box()["height"] < 40 for row in rows.all())
    region = tab.locator(".wide", has=tab.locator(".matrix"))
    region.focus()
    tab.keyboard.press("ArrowRight")
    tab.wait_for_function("region => region.scrollLeft > 0", arg=region.element_handle())


@pytest.mark.parametrize("by", ["click", "Enter"])
@pytest.mark.parametrize("name", ["Report", "notebook"])
def test_a_number_of_the_confusion_matrix_shows_its_pictures(opened, name, by):
    tab = opened(name)
    page = tab.frames[-1]
    link = page.locator(".matrix a").first
    words = link.get_attribute("aria-label")
    assert page.locator(".cell:visible").count() == 0
    if by == "click":
        link.click()
    else:
        link.focus()
        tab.keyboard.press("Enter")
    shown = page.locator(".cell:visible")
    shown.wait_for()
    count, true, predicted = words.removesuffix(": show pictures").replace(" images of ", "|").replace(
        ", predicted as ", "|"
    ).split("|")  # fmt: skip
    heading = shown.locator("h3").inner_text()
    assert heading.startswith(f"Images of {true}, predicted as {predicted}") and heading.endswith(f"of {count}")
    assert shown.locator("li").count() == min(int(count), 4 if true == predicted else 12)
    assert all(label == true for label in shown.locator("li.wrong p:nth-child(2) strong").all_inner_texts())
    assert tab.url.partition("#")[0].endswith(f"{name}.html"), "the notebook itself stays where it was"


@pytest.mark.parametrize("name", ["Report", "Inspection", "Audit"])
@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_a_picture_is_enlarged_and_made_small_again_by_keys(opened, name, width):
    tab = opened(name, width)
    summary = tab.locator(".frame summary").first
    image = summary.locator("img")
    small = image.bounding_box()["width"] * image.bounding_box()["height"]
    summary.focus()
    tab.keyboard.press("Enter")
    large = image.bounding_box()
    assert large["width"] * large["height"] > 2 * small
    assert large["x"] >= 0 and large["x"] + large["width"] <= width
    tab.keyboard.press("Enter")
    again = image.bounding_box()
    assert again["width"] * again["height"] == pytest.approx(small)


@pytest.mark.parametrize("name", KINDS)
def test_how_it_was_made_opens_by_keys_and_has_the_command_the_date_and_the_versions(opened, name):
    tab = opened(name)
    made = tab.locator("details.made")
    assert not made.locator("dl").is_visible()
    made.locator("summary").focus()
    tab.keyboard.press("Enter")
    words = made.inner_text()
    assert COMMAND in words and "date" in words and f"regraft {regraft.__version__}" in words


def test_a_reader_of_the_screen_hears_tables_and_buttons(opened):
    tree = opened("Report", NARROW).locator("main").aria_snapshot()
    assert "columnheader" in tree and "rowheader" in tree and "cell" in tree
    assert "link" in tree and "show pictures" in tree
