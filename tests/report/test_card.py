"""The model card: a hub's own reader finds its facts; it lies in the model folder and may be edited."""

from __future__ import annotations

import pytest
from tests.conftest import PLAIN

import regraft
from regraft import cli
from regraft.core.errors import UsageError

SMALL = {"backbone": "test_resnet", "weights": "random", "size": 64, "views": 0, **PLAIN}


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cards")
    report = regraft.train(photos, folder / "a", split="0.5/0.25/0.25", **SMALL)
    regraft.train(photos, folder / "b", split="0.5/0.25/0.25", head="mlp", epochs=2, **SMALL)
    return folder, report


def test_a_hub_reads_licence_task_and_measures_from_the_card(trained):
    hub = pytest.importorskip("huggingface_hub")
    folder, report = trained
    card = hub.ModelCard.load(folder / "a" / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("regraft", "image-classification")
    accuracy = next(result for result in card.data.eval_results if result.metric_type == "accuracy")
    assert accuracy.metric_value == pytest.approx(report.accuracy)
    assert f"| accuracy | test | {report.evaluation.n} |" in card.text
    assert "| blue | 6 | 3 | 3 |" in card.text and "--split 0.5/0.25/0.25" in card.text


def test_an_edited_card_is_no_edited_model_and_a_readme_of_the_users_is_kept(trained, photos):
    folder, report = trained
    card = folder / "b" / "README.md"
    card.write_text(card.read_text("utf-8") + "\nMore words.\n", "utf-8")
    assert regraft.load(folder / "b").classes == report.model.classes
    card.write_text("mine")
    with pytest.raises(UsageError, match="is not a regraft model"):
        regraft.load(folder / "a").save(folder / "b", overwrite=True)
    assert card.read_text() == "mine"


def test_several_models_are_compared_on_one_page(trained, tmp_path, capsys):
    folder, _ = trained
    page = tmp_path / "page.html"
    assert cli.main(["report", str(folder / "a"), str(folder / "b"), "-o", str(page)]) == 0
    text = page.read_text("utf-8")
    assert "2 models" in text and "the same 9 images" in text
    recipes = text.partition("Recipes")[2].partition("</section>")[0]
    assert "mlp" in recipes and "views" not in recipes, "which are equal in both"
