"""The schedules against PyTorch's own."""

import pytest
import torch
from torch.optim import lr_scheduler

from regraft.core import plugins
from regraft.core.errors import UsageError
from regraft.training import schedules
from regraft.training.options import read_options
from regraft.training.schedules import ScheduleStep

STEPS, EPOCH_STEPS, BASE = 50, 5, 0.1


def ours(name, *, warm_up=0, watched=(), steps=STEPS, **options):
    plugin = plugins.load(schedules, name)
    rate = schedules.build(name, read_options(plugin.Options, options, "option"), BASE, warm_up)
    return [rate(ScheduleStep(step, steps, EPOCH_STEPS, watched[: step // EPOCH_STEPS])) for step in range(steps)]


def torchs(make, *, every=1, steps=STEPS, watched=None):
    """Return the rate of each step by PyTorch's scheduler, which is stepped every so many steps."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=BASE)
    scheduler, rates = make(optimizer), []
    for step in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if (step + 1) % every == 0 and step + 1 < steps:
            scheduler.step(*([watched[step // every]] if watched else []))
    return rates


def test_constant_stays():
    assert ours("constant") == [BASE] * STEPS


@pytest.mark.parametrize(("every", "factor"), [(1, 0.5), (3, 0.1), (100, 0.1)])
def test_step_falls_as_steplr_does(every, factor):
    expected = torchs(lambda optimizer: lr_scheduler.StepLR(optimizer, every, factor), every=EPOCH_STEPS)
    assert ours("step", every=every, factor=factor) == pytest.approx(expected)


def test_exponential_falls_as_exponentiallr_does():
    expected = torchs(lambda optimizer: lr_scheduler.ExponentialLR(optimizer, (0.001 / BASE) ** (1 / STEPS)))
    assert ours("exponential", floor=0.001) == pytest.approx(expected)


def test_exponential_goes_from_a_tenth_to_a_thousandth_in_ten_thousand_steps_and_stays_there():
    rates = ours("exponential", floor="0.001", over="10000", steps=10_101)
    assert [rates[step] for step in (0, 5000, 10_000, 10_100)] == pytest.approx([0.1, 0.01, 0.001, 0.001])
    assert rates[7500] == pytest.approx(0.1 * 10**-1.5)


@pytest.mark.parametrize("floor", [0.0, 0.02])
def test_cosine_falls_as_cosineannealinglr_does(floor):
    expected = torchs(lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, STEPS, floor))
    assert ours("cosine", floor=floor) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["exponential", "cosine", "plateau"])
def test_a_base_below_the_floor_stays_where_it_is(name):
    assert ours(name, floor=1.0, watched=[1.0] * 10) == pytest.approx([BASE] * STEPS)


@pytest.mark.parametrize("steps", [3, 7, 50])
@pytest.mark.parametrize("options", [{}, {"rise": 0.5, "start": 10, "end": 100}, {"rise": 0.0}, {"rise": 1}])
def test_onecycle_goes_as_onecyclelr_does(options, steps):
    rise, start, end = (options.get(name, value) for name, value in (("rise", 0.3), ("start", 25.0), ("end", 1e4)))

    def make(optimizer):
        return lr_scheduler.OneCycleLR(
            optimizer, BASE, total_steps=steps, pct_start=float(rise), div_factor=start, final_div_factor=end,
            cycle_momentum=False,
        )  # fmt: skip

    assert ours("onecycle", steps=steps, **options) == pytest.approx(torchs(make, steps=steps))


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_plateau_falls_as_reducelronplateau_does(patience):
    watched = [5, 4, 4, 4.5, 4.2, 3, 3, 3, 3, 3]

    def make(optimizer):  # which waits for one epoch more
        return lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=patience - 1, threshold=0, min_lr=1e-3)

    expected = torchs(make, every=EPOCH_STEPS, watched=watched)
    assert ours("plateau", watched=watched, factor=0.3, patience=patience, floor=1e-3) == pytest.approx(expected)
    assert len(set(expected)) > 1


@pytest.mark.parametrize("warm_up", [1, 7])
def test_a_warm_up_is_linearlr_in_front(warm_up):
    def make(optimizer):
        first = lr_scheduler.LinearLR(optimizer, 1 / (warm_up + 1), 1.0, warm_up)
        then = lr_scheduler.CosineAnnealingLR(optimizer, STEPS - warm_up)
        return lr_scheduler.SequentialLR(optimizer, [first, then], [warm_up])

    assert ours("cosine", warm_up=warm_up) == pytest.approx(torchs(make))


def test_a_run_that_is_all_warm_up_only_rises():
    rates = ours("cosine", warm_up=100)
    assert rates == pytest.approx([BASE * (step + 1) / 101 for step in range(STEPS)])


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("step", {"every": 0}),
        ("step", {"every": 0.5}),
        ("step", {"factor": 2}),
        ("exponential", {"floor": 0}),
        ("exponential", {"over": 0}),
        ("cosine", {"floor": -1}),
        ("cosine", {"floor": "low"}),
        ("onecycle", {"rise": 1.5}),
        ("onecycle", {"start": 0.5}),
        ("onecycle", {"end": 0}),
        ("plateau", {"factor": 0}),
        ("plateau", {"patience": 0}),
        ("plateau", {"floor": float("inf")}),
    ],
)
def test_an_option_that_is_invalid_is_refused(name, wrong):
    with pytest.raises(UsageError, match=f"--{next(iter(wrong))} is .*expected"):
        plugins.load(schedules, name).Options(**wrong)
