import numpy as np
import pytest
from scipy.special import softmax
from sklearn.datasets import make_moons
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from regraft.core.errors import Diverged, UsageError
from regraft.training import loop
from regraft.training.examples import Examples
from regraft.training.heads import mlp
from regraft.training.losses import Loss
from regraft.training.options import FitOptions

OPTIONS = FitOptions(head="mlp", epochs=60, learning_rate=0.02)


def moons(seed, stretch=1.0):
    inputs, labels = make_moons(300, noise=0.15, random_state=seed)
    return Examples((inputs * stretch + 3 * stretch).astype(np.float32), labels)


def accuracy(module, examples):
    return np.mean(loop.logits(module, examples.inputs).argmax(1) == examples.labels)


def test_it_separates_what_no_line_can_as_well_as_scikit_learns_network():
    train, held, fresh = moons(0), moons(1), moons(2)
    module = mlp.fit(train, held, 2, mlp.Options(hidden=32, dropout=0.1), OPTIONS).module
    line = LogisticRegression().fit(train.inputs, train.labels).score(fresh.inputs, fresh.labels)
    network = MLPClassifier(32, max_iter=500, learning_rate_init=0.02, random_state=0).fit(train.inputs, train.labels)
    assert accuracy(module, fresh) > max(0.95, line + 0.05)
    assert accuracy(module, fresh) > network.score(fresh.inputs, fresh.labels) - 0.03


def test_features_of_any_scale_give_the_same_classes():
    probabilities = []
    for stretch in (1.0, 1e4):
        fitted = mlp.fit(moons(0, stretch), None, 2, mlp.Options(hidden=16, dropout=0), OPTIONS)
        probabilities.append(loop.probabilities(fitted.module, moons(2, stretch).inputs))
    assert np.mean(probabilities[0].argmax(1) == probabilities[1].argmax(1)) > 0.99


@pytest.mark.parametrize("hidden", [None, 5, (5,), (7, 5, 3)])
def test_it_is_dense_layers_with_relu_between_on_standardised_features(hidden):
    train = moons(0)
    module = mlp.fit(train, None, 2, mlp.Options(hidden=hidden), FitOptions(head="mlp", epochs=1)).module
    values = (train.inputs - train.inputs.mean(0)) / train.inputs.std(0)
    layers = [tensor.numpy() for name, tensor in module.state_dict().items() if not name.startswith("0.")]
    for weight, bias in zip(layers[:-2:2], layers[1:-2:2], strict=True):
        values = np.maximum(values @ weight.T + bias, 0)
    expected = softmax(values @ layers[-2].T + layers[-1], axis=1)
    np.testing.assert_allclose(loop.probabilities(module, train.inputs), expected, atol=1e-4)
    widths = [2, *np.atleast_1d(hidden or []).astype(int), 2]
    assert [layer.shape for layer in layers[::2]] == list(zip(widths[1:], widths[:-1], strict=True))


@pytest.mark.parametrize("hidden", [None, 5, (7, 5, 3)])
def test_logits_without_torch_are_those_of_the_module_for_any_hidden_layers(hidden):
    options, train = mlp.Options(hidden=hidden), moons(0)
    module = mlp.fit(train, None, 2, options, FitOptions(head="mlp", epochs=1)).module
    weights = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    logits = mlp.logits(weights, train.inputs, options)
    np.testing.assert_allclose(logits, loop.logits(module, train.inputs), rtol=0, atol=1e-6 * np.abs(logits).max())


def test_it_stops_by_the_validation_part():
    train = moons(0)
    contrary = Examples(train.inputs, 1 - train.labels)
    fitted = mlp.fit(train, contrary, 2, mlp.Options(dropout=0), FitOptions(head="mlp", patience=3))
    assert fitted.chosen == {"best_epoch": 1, "judged_on": "validation"}
    assert fitted.history.epochs == 4


def test_without_a_hidden_layer_it_converges_to_scikit_learns_regression():
    train, fresh = moons(0, 40.0), moons(1, 40.0)
    options = FitOptions(head="mlp", epochs=600, learning_rate=0.1, batch_size="all", patience=None)
    module = mlp.fit(train, None, 2, mlp.Options(hidden=None), options).module
    expected = LogisticRegression(C=1e6, tol=1e-8).fit(train.inputs, train.labels).predict_proba(fresh.inputs)
    np.testing.assert_allclose(loop.probabilities(module, fresh.inputs), expected, atol=5e-3)


def test_its_history_is_that_of_the_whole_module_on_inputs_that_are_not_standardised():
    train, held = moons(0, 1e3), moons(1, 1e3)
    fitted = mlp.fit(train, held, 2, mlp.Options(), FitOptions(head="mlp", epochs=3))
    measured = [row for row in fitted.history.part("validation") if row.epoch == fitted.history.best_epoch]
    assert (measured[0].loss, measured[0].accuracy) == pytest.approx(loop.evaluate(fitted.module, held), abs=1e-6)


def test_what_is_kept_when_it_diverges_takes_inputs_that_are_not_standardised():
    train = moons(0, 1e3)
    options = FitOptions(head="mlp", optimizer="sgd", learning_rate=1e6, epochs=50)
    with pytest.raises(Diverged) as caught:
        mlp.fit(train, None, 2, mlp.Options(hidden=(64, 64, 64)), options)
    module = caught.value.kept.module
    assert not module.training
    assert np.isfinite(loop.logits(module, train.inputs)).all()
    assert set(mlp.build((2,), 2, mlp.Options(hidden=(64, 64, 64))).state_dict()) == set(module.state_dict())


def test_no_layers_at_all_are_none_not_an_empty_list():
    with pytest.raises(UsageError, match="--hidden"):
        mlp.Options(hidden=())


def test_with_one_output_it_learns_the_same():
    train, held, fresh = moons(0), moons(1), moons(2)
    options = FitOptions(head="mlp", epochs=60, learning_rate=0.02, loss="sigmoid")
    module = mlp.fit(train, held, 2, mlp.Options(hidden=32, dropout=0.1), options).module
    probabilities = loop.probabilities(module, fresh.inputs, Loss("sigmoid"))
    assert loop.logits(module, fresh.inputs).shape == (300, 1)
    assert np.mean(probabilities.argmax(1) == fresh.labels) > 0.95


def test_what_is_prepared_is_what_is_trained():
    train, held = moons(0, 1e3), moons(1, 1e3)
    options = FitOptions(head="mlp", epochs=3)
    module, body, standardised, standardised_held = mlp.prepare(train, held, 2, mlp.Options(), options)
    loop.train(body, standardised, standardised_held, options=options)
    fitted = mlp.fit(train, held, 2, mlp.Options(), options)
    assert np.array_equal(loop.logits(module, held.inputs), loop.logits(fitted.module, held.inputs))
