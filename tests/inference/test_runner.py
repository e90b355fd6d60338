"""A trunk at work: its engine is started once, and what was settled is remembered."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tests.network.trunks import batch, features, trunk

from regraft.inference import agreement
from regraft.inference.runner import Runner


def test_several_threads_may_ask_at_once_also_before_anything_was_asked(monkeypatch):
    images, starts = batch(24), []
    expected = features(trunk(), images)
    start = agreement.start
    monkeypatch.setattr(agreement, "start", lambda *arguments: starts.append(1) or start(*arguments))
    runner = Runner(trunk())
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(runner, np.split(images, 8)))
    np.testing.assert_allclose(np.concatenate(parts), expected, rtol=1e-4, atol=1e-5)
    assert len(starts) == 1


def test_no_images_have_no_features():
    assert features(trunk(), batch(0)).shape == (0, 96)


def test_a_runner_that_has_run_can_be_pickled_and_runs_again():
    runner = Runner(trunk())
    outputs = runner(batch())
    again = pickle.loads(pickle.dumps(runner))
    np.testing.assert_array_equal(again(batch()), outputs)
    assert again.trunk.digest == runner.trunk.digest
