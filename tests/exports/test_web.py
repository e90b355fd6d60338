"""The page in a real browser names what the model names: offline, from one file, by camera, on a narrow screen."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from tests.conftest import PLAIN, write_photos
from tests.exports.browsers import opened_browser, served, web_runtime

import regraft
from regraft.core import plugins
from regraft.data.decode import decode
from regraft.exports import formats
from regraft.exports.made_images import made_images
from regraft.exports.whole import reference

SMALL = {"backbone": "test_resnet", "weights": "random", "size": 64, "views": 0, **PLAIN}
CLASSIFY = """async (text) => {
  const data = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return (await classify(new Blob([data]))).values;
}"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model and its page; the name of a class would end a script element."""
    runtime = web_runtime()
    for module in plugins.load(formats, "web").MODULES:
        pytest.importorskip(module, reason=f"--to web needs {module}")
    folder = tmp_path_factory.mktemp("web")
    photos = write_photos(folder / "photos")
    (photos / "red").rename(photos / "<script>red")
    model = regraft.train(photos, folder / "model", **SMALL).model
    regraft.export(model, folder / "page", to="web", runtime=runtime)
    return model, folder / "page"


@pytest.fixture(scope="module")
def browser():
    with opened_browser() as browser:
        yield browser


def opened(browser, address, **settings):
    """Open the page and wait until its model is loaded; whatever goes wrong in it fails the test."""
    page = browser.new_context(**settings).new_page()
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda line: page.errors.append(line.text) if line.type == "error" else None)
    page.goto(address)
    page.locator("#status", has_text="Ready").wait_for()
    return page


def answer(page, data):
    return np.array(page.evaluate(CLASSIFY, base64.b64encode(data).decode()))


def test_the_folder_names_what_the_model_names_and_goes_on_without_its_server(exported, browser):
    model, folder = exported
    expected = reference(model)
    with served(folder) as (address, stop):
        page = opened(browser, address)
        for kind, data in made_images():
            if "4096" in kind:
                continue
            probabilities = expected(decode(data))
            assert np.abs(answer(page, data) - probabilities).max() <= 0.02, kind
        page.evaluate("navigator.serviceWorker.ready.then((worker) => worker.active.state)")
        page.reload()  # what is open before the worker is ready is not yet its own
        page.locator("#status", has_text="Ready").wait_for()
        stop()
        page.reload()
        page.locator("#status", has_text="Ready").wait_for()
        assert np.abs(answer(page, data) - probabilities).max() <= 0.02
        assert page.errors == []


def test_one_file_works_by_double_click_with_files_keyboard_and_camera(exported, browser, tmp_path):
    _, folder = exported
    page = opened(browser, (folder / "one.html").as_uri())
    photos = write_photos(tmp_path / "new", per_class=1, seed=7)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    page.set_input_files("#files", [photos / "blue" / "000.png", photos / "red" / "000.png", tmp_path / "broken.jpg"])
    page.locator("#status", has_text="broken.jpg can't be read as a picture").wait_for()
    assert page.locator("article h2").all_inner_texts() == ["<script>red", "blue"]
    assert page.locator("article canvas").first.get_attribute("aria-label") == "000.png"
    page.locator("#files").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # opens the camera, and goes to its button
    page.locator("#take:focus").wait_for()
    page.keyboard.press("Enter")
    page.locator("article").nth(2).wait_for()
    page.click("#stop")
    page.click("#clear")
    assert page.locator("article").count() == 0
    assert page.errors == []


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_screen(exported, browser, tmp_path, width, scheme):
    _, folder = exported
    with served(folder) as (address, _):
        size = {"width": width, "height": 780}
        page = opened(browser, address, viewport=size, color_scheme=scheme, service_workers="block")
        page.set_input_files("#files", [write_photos(tmp_path / "new", per_class=1) / "blue" / "000.png"])
        page.locator("article").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_the_page_may_send_nothing_anywhere(exported, browser):
    _, folder = exported
    for name in ("index.html", "one.html"):
        text = (folder / name).read_text("utf-8")
        policy = text.partition('Content-Security-Policy" content="')[2].partition('"')[0]
        assert policy.startswith("default-src 'none'") and "http" not in policy
    manifest = json.loads((folder / "manifest.webmanifest").read_text("utf-8"))
    assert (folder / manifest["icons"][0]["src"]).is_file()
