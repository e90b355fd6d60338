"""The final fit: what held-out images have chosen is trained again, from them too; the test part is not seen."""

import dataclasses

import numpy as np
import pytest
from tests.conftest import PLAIN
from tests.training.maps import above, maps

import regraft
from regraft.training import finetune
from regraft.training.examples import Examples, together
from regraft.training.options import FitOptions

SMALL = {"backbone": "test_resnet", "weights": "random", "size": 32, "views": 0, **PLAIN}


@pytest.fixture(scope="module")
def features(photos, tmp_path_factory):
    index = regraft.split(regraft.read(photos), split="0.5/0.25/0.25")
    return regraft.extract(index, **SMALL, store=tmp_path_factory.mktemp("store"))


def joined_parts(features):
    """The same features, the validation part's images in the training part."""
    rows = (dataclasses.replace(row, part="train" if row.part == "validation" else row.part) for row in features.index)
    return features.with_index(features.index.with_rows(rows))


def test_the_linear_head_is_that_of_both_parts_with_the_regularisation_that_validation_chose(features):
    model = regraft.fit(features)
    alone = regraft.fit(features, refit="off")
    assert model.chosen["regularisation"] == alone.chosen["regularisation"]
    chosen = {"regularisation": model.chosen["regularisation"]}
    expected = regraft.fit(joined_parts(features), head_options=chosen)
    np.testing.assert_allclose(model.probabilities(features), expected.probabilities(features), atol=2e-5)
    assert np.abs(model.probabilities(features) - alone.probabilities(features)).max() > 1e-4
    assert model.history.to_list()[0]["images"] == len(features.part("train"))


def test_a_head_of_epochs_is_trained_again_for_those_that_were_chosen_and_its_curves_are_those_that_chose(features):
    options = {"head": "mlp", "epochs": 6, "seed": 1}
    model, alone = regraft.fit(features, **options), regraft.fit(features, **options, refit="off")
    best = alone.chosen["best_epoch"]
    fixed = {**options, "epochs": best, "patience": None}
    expected = regraft.fit(joined_parts(features), **fixed)
    losses = [[row[key] for key in ("epoch", "part", "loss")] for row in model.history.to_list()]
    assert losses == [[row[key] for key in ("epoch", "part", "loss")] for row in alone.history.to_list()]
    assert model.chosen["learned_again_from"].startswith("27 images")
    assert expected.history.epochs <= best
    assert not np.allclose(model.head_weights["1.weight"], alone.head_weights["1.weight"])


def test_without_held_out_images_nothing_is_trained_again(features):
    assert "learned_again_from" not in regraft.fit(joined_parts(features)).chosen


def test_an_evaluation_on_images_that_were_learned_from_says_so(features):
    report = regraft.evaluate(regraft.fit(features), features.index, part="validation")
    assert any("9 of these 9 images were trained on" in note for note in report.notes)
    test = regraft.evaluate(regraft.fit(features), features.index)
    assert test.part == "test" and not test.notes


def test_rows_of_both_stand_one_after_the_other_and_those_without_views_stand_for_their_own():
    rng = np.random.default_rng(0)
    train = Examples(rng.normal(size=(5, 3)).astype(np.float32), np.arange(5) % 2, np.arange(5), (np.ones((5, 3)),))
    others = Examples(rng.normal(size=(2, 3)).astype(np.float32), np.array([1, 1]), np.zeros(2, np.int64))
    both = together(train, others)
    rows = np.array([6, 0, 5, 4])
    np.testing.assert_array_equal(both.inputs[rows], np.concatenate([train.inputs, others.inputs])[rows])
    np.testing.assert_array_equal(both.views[0][rows], np.concatenate([np.ones((5, 3)), others.inputs])[rows])
    assert both.labels.tolist() == [0, 1, 0, 1, 0, 1, 1] and len(set(both.groups.tolist())) == 6


# A tail


def refitted(train, kept, **chosen):
    options = FitOptions(tail_epochs=5, epochs=5, batch_size=8, patience=None)
    phases = [{"phase": "head", "epochs": 0}, {"phase": "tail", "epochs": 5, "best_epoch": 2, **chosen}]
    return finetune.refit(above(), (2, 6, 6), train, 2, options, {"kept": kept, "phases": phases})


def test_where_the_head_was_kept_it_is_that_of_a_run_without_the_tails_phase_on_all_images():
    train = maps(seed=3)
    options = FitOptions(phases="head", batch_size=8)
    expected = finetune.fit(above(), (2, 6, 6), train, None, 2, options)
    for name, weights in refitted(train, "head").weights.items():
        np.testing.assert_array_equal(weights, expected.weights[name])


def test_where_the_tail_was_kept_it_is_trained_for_the_epochs_and_as_far_as_was_chosen():
    train = maps(seed=3)
    whole, half, head = refitted(train, "tail", share=1.0), refitted(train, "tail", share=0.5), refitted(train, "head")
    assert whole.history.epochs == 2
    for name, weights in half.weights.items():
        middle = (head.weights[name] + whole.weights[name]) / 2
        np.testing.assert_allclose(weights, middle, atol=1e-5)
