import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from regraft.evaluation import strangers
from regraft.evaluation.significance import wilson


def test_strangers_are_counted_above_the_threshold_and_ranked_as_scikit_learn_does():
    rng = np.random.default_rng(0)
    known, unlike = rng.normal(0, 1, 200), rng.normal(2, 1, 100)
    measured = strangers.measure(known, unlike, 1.5)
    assert measured.caught == (unlike > 1.5).mean()
    assert measured.false_alarms == (known > 1.5).mean()
    assert measured.caught_interval == wilson(int((unlike > 1.5).sum()), 100)
    expected = roc_auc_score(np.repeat([0, 1], [200, 100]), np.concatenate([known, unlike]))
    assert measured.roc_auc == pytest.approx(expected)
    assert f"{100 * measured.caught:.1f} % of 100 strangers" in measured.text()
