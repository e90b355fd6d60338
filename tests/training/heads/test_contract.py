"""What every head keeps; a file laid into the folder of heads is tested without a change here."""

import dataclasses
import json

import numpy as np
import pytest
import safetensors.torch
import torch

from regraft.core import plugins
from regraft.core.errors import DataError, UsageError
from regraft.training import heads, loop, losses
from regraft.training.examples import Examples
from regraft.training.options import FitOptions, read_options

every_head = pytest.mark.parametrize("name", plugins.names(heads))
every_shape = pytest.mark.parametrize("shape", [(6,), (2, 3, 1)], ids=["rows", "maps"])


def blobs(seed, shape=(6,), classes=3, n=90):
    labels = np.arange(n) % classes
    centres = np.random.default_rng(9).normal(20, 3, (classes, *shape))
    noise = np.random.default_rng(seed).normal(size=(n, *shape))
    return Examples((centres[labels] + noise).astype(np.float32), labels)


def fitted(name, train, validation=None, classes=3, device="cpu", **choices):
    head = plugins.load(heads, name)
    options = FitOptions(head=name, epochs=15, learning_rate=0.01, **choices)
    return head.fit(train, validation, classes, head.Options(), options, device=device)


@every_head
@every_shape
@pytest.mark.parametrize("classes", [2, 3])
def test_it_learns_on_any_device_and_gives_a_logit_for_each_class_on_the_cpu(name, shape, classes, device):
    result = fitted(name, blobs(0, shape, classes), blobs(1, shape, classes), classes, device)
    fresh = blobs(2, shape, classes)
    logits = result.module(torch.from_numpy(fresh.inputs))
    assert logits.shape == (90, classes)
    assert np.mean(logits.argmax(1).numpy() == fresh.labels) > 0.95


@every_head
def test_by_sigmoid_it_gives_one_logit_for_two_classes_and_refuses_more(name):
    result = fitted(name, blobs(0, classes=2), blobs(1, classes=2), 2, loss="sigmoid")
    logits = loop.logits(result.module, blobs(2, classes=2).inputs)
    assert logits.shape == (90, 1)
    assert np.mean((logits[:, 0] > 0) == blobs(2, classes=2).labels) > 0.95
    with pytest.raises(UsageError, match="--loss is sigmoid"):
        fitted(name, blobs(0), loss="sigmoid")


def labelled(seed, n=120):
    """Rows with two labels, each shown by some of their features; some have both, some neither."""
    rng = np.random.default_rng(seed)
    labels = np.array([[1, 1], [0, 0], [1, 0], [0, 1]])[np.arange(n) % 4]
    return Examples((np.c_[labels, labels, labels] * 6 + rng.normal(size=(n, 6))).astype(np.float32), labels)


@every_head
@pytest.mark.parametrize("validation", [None, labelled(1)], ids=["train only", "validation"])
def test_it_learns_several_labels_of_an_image(name, validation):
    result = fitted(name, labelled(0), validation, 2)
    fresh = labelled(2)
    loss, accuracy = loop.evaluate(result.module, fresh, losses.of(FitOptions(), fresh.labels))
    assert accuracy > 0.95
    assert loss < 0.2


@every_head
@pytest.mark.parametrize("balance", ["weights", "oversample"])
def test_balanced_it_predicts_a_rare_class_more_often(name, balance):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [180, 20])
    train = Examples((labels[:, None] + rng.normal(size=(200, 6))).astype(np.float32), labels)
    plain, balanced = (fitted(name, train, None, 2, balance=choice) for choice in ("none", balance))
    fresh = (1 + np.random.default_rng(1).normal(size=(500, 6))).astype(np.float32)  # all of the rare class
    recalls = [np.mean(loop.logits(result.module, fresh).argmax(1)) for result in (plain, balanced)]
    assert recalls[1] > recalls[0] + 0.05


@every_head
@every_shape
def test_name_options_and_tensors_are_enough_to_restore_it(name, shape):
    head = plugins.load(heads, name)
    module = fitted(name, blobs(0, shape)).module
    options = json.loads(json.dumps(dataclasses.asdict(head.Options())))
    again = head.build(shape, 3, read_options(head.Options, options, "option"))
    again.load_state_dict(safetensors.torch.load(safetensors.torch.save(module.state_dict())))
    inputs = blobs(1, shape).inputs
    assert np.array_equal(loop.logits(again, inputs), loop.logits(module, inputs))


@every_head
@every_shape
@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_logits_without_torch_are_those_of_the_module(name, shape, precision):
    head = plugins.load(heads, name)
    options = FitOptions(head=name, epochs=3)
    module = head.fit(blobs(0, shape), None, 3, options.head_settings, options).module.to(precision)
    inputs = blobs(1, shape).inputs
    weights = {key: tensor.numpy() for key, tensor in module.state_dict().items()}
    logits = head.logits(weights, inputs, options.head_settings)
    expected = loop.logits(module, inputs)
    assert logits.dtype == expected.dtype
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@every_head
@pytest.mark.parametrize("validation", [None, blobs(1)], ids=["train only", "validation"])
def test_it_returns_a_module_in_eval_mode_a_history_of_each_part_and_what_it_chose(name, validation):
    result = fitted(name, blobs(0), validation)
    assert not result.module.training
    assert {row.part for row in result.history.rows} == ({"train", "validation"} if validation else {"train"})
    assert all(0 <= row.accuracy <= 1 and row.loss > 0 for row in result.history.rows)
    assert result.chosen == json.loads(json.dumps(result.chosen))


@every_head
def test_the_same_seed_gives_the_same_tensors_and_the_callers_random_state_is_left_alone(name):
    before = torch.get_rng_state()
    first, second = (fitted(name, blobs(0), seed=5).module.state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert torch.equal(before, torch.get_rng_state())


@every_head
def test_the_validation_part_may_choose_but_is_never_trained_on(name):
    """Its rows change no standardisation and no weight, as long as the same is chosen."""
    head = plugins.load(heads, name)
    options = FitOptions(head=name, epochs=1, head_options={"regularisation": 1.0} if name == "linear" else None)
    far = blobs(1)
    shifted = Examples(far.inputs + 1000, far.labels)
    states = [
        head.fit(blobs(0), held, 3, options.head_settings, options).module.state_dict() for held in (far, shifted)
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@every_head
def test_a_class_without_training_rows_is_refused(name):
    with pytest.raises(DataError, match="class 3"):
        fitted(name, blobs(0), classes=4)


@every_head
def test_inputs_that_are_nan_are_refused(name):
    broken = blobs(0)
    broken.inputs[17, 2] = np.nan
    with pytest.raises(DataError, match="NaN"):
        fitted(name, broken)
