"""What every schedule keeps; a file laid into the folder of schedules is tested without a change here."""

import dataclasses
import math

import pytest

from regraft.core import plugins
from regraft.training import schedules
from regraft.training.schedules import ScheduleStep

every_schedule = pytest.mark.parametrize("name", plugins.names(schedules))


def run(steps=60, epoch_steps=6):
    """Return a run of ten epochs, whose loss rises from the second on."""
    losses = [1.0, 0.9, *(0.9 + 0.1 * epoch for epoch in range(1, 9))]
    return [ScheduleStep(step, steps, epoch_steps, losses[: step // epoch_steps]) for step in range(steps)]


@every_schedule
@pytest.mark.parametrize("base", [1e-5, 0.1, 100.0])
def test_a_rate_is_above_0_and_at_most_the_base(name, base):
    plugin = plugins.load(schedules, name)
    rates = [plugin.rate(at, base, plugin.Options()) for at in run()]
    assert all(0 < rate <= base * (1 + 1e-12) for rate in rates)


@every_schedule
def test_a_rate_is_a_function_of_the_step_alone(name):
    plugin = plugins.load(schedules, name)
    forwards = [plugin.rate(at, 0.1, plugin.Options()) for at in run()]
    backwards = [plugin.rate(at, 0.1, plugin.Options()) for at in reversed(run())]
    assert forwards == backwards[::-1]


@every_schedule
def test_rates_are_in_proportion_to_the_base_by_default(name):
    plugin = plugins.load(schedules, name)
    for at in run():
        assert plugin.rate(at, 0.2, plugin.Options()) == pytest.approx(2 * plugin.rate(at, 0.1, plugin.Options()))


@every_schedule
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_run_of_few_steps_has_a_rate_too(name, steps):
    plugin = plugins.load(schedules, name)
    for step in range(steps):
        assert 0 < plugin.rate(ScheduleStep(step, steps, 1), 0.1, plugin.Options()) < math.inf


@every_schedule
def test_its_options_are_frozen_with_a_default_and_a_help_text_each(name):
    kind = plugins.load(schedules, name).Options
    assert kind.__dataclass_params__.frozen
    for field in dataclasses.fields(kind):
        assert field.default is not dataclasses.MISSING
        assert field.metadata["help"]


@every_schedule
def test_a_warm_up_rises_linearly_to_the_schedules_first_rate_and_delays_the_schedule(name):
    plugin = plugins.load(schedules, name)
    plain, warmed = (schedules.build(name, plugin.Options(), 0.1, warm_up) for warm_up in (0, 4))
    first = plain(ScheduleStep(0, 20, 5))
    rates = [warmed(ScheduleStep(step, 24, 5)) for step in range(24)]
    assert rates[:4] == pytest.approx([first * share for share in (0.2, 0.4, 0.6, 0.8)])
    assert rates[4:] == pytest.approx([plain(ScheduleStep(step, 20, 5)) for step in range(20)])
