import math

import pytest

from openaff import UserError
from openaff.training.config import ScheduleConfig
from openaff.training.schedule import Schedule, cosine, polynomial, step_decay


def test_cosine_closed_form():
    assert cosine(0, 100, 0.2) == pytest.approx(0.2)
    assert cosine(50, 100, 0.2) == pytest.approx(0.1)
    assert cosine(100, 100, 0.2) == pytest.approx(0)
    assert cosine(25, 100, 1) == pytest.approx((1 + math.sqrt(0.5)) / 2)


def test_step_decay_closed_form():
    values = [step_decay(step, [3, 5], 0.2, 0.1) for step in range(7)]
    assert values == pytest.approx([0.2, 0.2, 0.2, 0.02, 0.02, 0.002, 0.002])


def test_polynomial_closed_form():
    values = [polynomial(step, 4, 0.8, 2) for step in range(5)]
    assert values == pytest.approx([0.8, 0.45, 0.2, 0.05, 0])
    schedule = Schedule(ScheduleConfig("polynomial", warmup=1), 0.8, 5, steps_per_epoch=1)
    assert [schedule(step) for step in range(5)] == pytest.approx([0, 0.8, 0.45, 0.2, 0.05])
    linear = Schedule(ScheduleConfig("polynomial", power=1.0), 0.8, 4, steps_per_epoch=1)
    assert [linear(step) for step in range(4)] == pytest.approx([0.8, 0.6, 0.4, 0.2])


def test_warmup_is_linear_from_zero_then_the_cosine_begins():
    schedule = Schedule(ScheduleConfig("cosine", warmup=2), 0.4, epochs=10, steps_per_epoch=5)
    assert [schedule(step) for step in range(10)] == pytest.approx([0.04 * k for k in range(10)])
    assert schedule(10) == pytest.approx(0.4)
    assert schedule(30) == pytest.approx(0.2)
    assert 0 < schedule(49) < 0.01


def test_step_schedule_counts_milestones_in_epochs():
    config = ScheduleConfig("step", milestones=[3, 4.5])
    schedule = Schedule(config, 1.0, epochs=6, steps_per_epoch=10)
    assert [schedule(step) for step in (0, 29, 30, 44, 45, 59)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )


def test_warmup_and_milestones_counted_in_steps():
    config = ScheduleConfig("step", unit="steps", warmup=4, milestones=[15, 25])
    schedule = Schedule(config, 1.0, epochs=3, steps_per_epoch=10)
    assert [schedule(step) for step in (0, 2, 4, 14, 15, 24, 25)] == pytest.approx(
        [0, 0.5, 1, 1, 0.1, 0.1, 0.01]
    )
    with pytest.raises(UserError, match="milestones: 25 lies outside a run of 20 steps"):
        Schedule(config, 1.0, epochs=2, steps_per_epoch=10)


def test_factor_of_the_config_is_used():
    config = ScheduleConfig("step", milestones=[1], factor=0.5)
    assert Schedule(config, 1.0, 2, 1)(1) == pytest.approx(0.5)


def test_lengths_that_no_step_feels():
    with pytest.raises(UserError, match="warmup: 0.04 epochs is less than half a step"):
        Schedule(ScheduleConfig("cosine", warmup=0.04), 1.0, epochs=2, steps_per_epoch=11)
    for marks, steps in (([0.01], "0"), ([1.99], "22"), ([1, 1.01], "11, 11")):
        config = ScheduleConfig("step", milestones=marks)
        with pytest.raises(UserError, match=f"of 22 steps they are at {steps}, and not all change"):
            Schedule(config, 1.0, epochs=2, steps_per_epoch=11)
