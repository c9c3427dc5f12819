import math

import numpy as np
import pytest

from hpcule.config.errors import UsageError
from hpcule.victim.config import VictimConfig
from hpcule.victim.training_schedule import TrainingSchedule, enough_epochs


def make(samples=230, **settings):
    return TrainingSchedule.of(VictimConfig(**{"batch": 50, "learning_rate": 1.0, **settings}), samples)


def rates(schedule):
    return [schedule.rate(step) for step in range(schedule.total)]


def cosine(total):
    return [0.5 * (1 + math.cos(math.pi * step / total)) for step in range(total)]


def test_warm_up_of_an_epoch_then_a_cosine():
    warm = [0.2, 0.4, 0.6, 0.8] + [1.0] * 16
    assert rates(make(epochs=4)) == pytest.approx([a * b for a, b in zip(cosine(20), warm, strict=True)])


def test_warm_up_may_last_a_part_of_an_epoch_or_several():
    half = [0.4, 0.8] + [1.0] * 8
    assert rates(make(epochs=2, warmup_epochs=0.5)) == pytest.approx(
        [a * b for a, b in zip(cosine(10), half, strict=True)]
    )
    assert make(epochs=4, warmup_epochs=2).rate(0) == pytest.approx(0.1)
    assert rates(make(epochs=4, warmup_epochs=0)) == pytest.approx(cosine(20))


def test_a_run_as_short_as_its_warm_up_has_none():
    assert rates(make(epochs=1)) == pytest.approx(cosine(5))
    assert rates(make(steps=5)) == pytest.approx(cosine(5))
    assert rates(make(steps=6))[0] == pytest.approx(0.2)


@pytest.mark.parametrize("batch", [10, 50, 229, 230])
def test_a_budget_of_steps_holds_for_every_batch(batch):
    schedule = make(steps=7, batch=batch)
    assert schedule.total == 7
    assert schedule.epochs == math.ceil(7 / math.ceil(230 / batch))
    assert schedule.rate(6) == pytest.approx(cosine(7)[6] * min(1.0, 7 / max(1, schedule.warmup)))


@pytest.mark.parametrize("samples", [3680, 4708, 546])
@pytest.mark.parametrize("batch", [1, 32, 100, 128, 512, 546])
def test_every_step_but_an_epochs_last_takes_the_batch_asked_for(samples, batch):
    schedule, numbers = make(samples, batch=batch), np.arange(samples)[::-1]
    batches = schedule.batches(numbers)
    sizes = [len(one) for one in batches]
    assert len(sizes) == schedule.steps_an_epoch
    assert set(sizes[:-1]) <= {batch}
    assert 0 < sizes[-1] <= batch
    assert np.array_equal(np.concatenate(batches), numbers)


def test_a_batch_larger_than_the_data_names_the_data_and_the_remedy():
    with pytest.raises(UsageError, match=r"victim.batch=231 is more than the 230 samples: .* --set victim.batch=230"):
        make(batch=231)


def test_of_fewer_samples_than_the_default_a_step_takes_all():
    schedule = TrainingSchedule.of(VictimConfig(epochs=3), 100)
    assert (schedule.total, [len(batch) for batch in schedule.batches(np.arange(100))]) == (3, [100])


def test_epochs_and_the_run_end_somewhere():
    schedule = make(steps=12)
    assert [step for step in range(1, 13) if schedule.ends_epoch(step)] == [5, 10, 12]


@pytest.mark.parametrize(
    ("samples", "usual", "epochs"),
    [(50_000, 15, 15), (2500, 15, 15), (2499, 15, 16), (625, 15, 60), (625, 10, 40), (125, 15, 300), (10, 15, 300)],
)
def test_fewer_samples_are_passed_through_more_often_where_nobody_says_how_often(samples, usual, epochs):
    assert enough_epochs(samples, usual) == epochs
    if usual == 15:
        assert TrainingSchedule.of(VictimConfig(), samples).epochs == epochs
    assert TrainingSchedule.of(VictimConfig(epochs=2), samples).epochs == 2


def test_a_triangle_rises_and_falls_by_straight_lines():
    found = rates(make(epochs=4, schedule="triangular", warmup_epochs=2))
    assert found == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0] + [1 - k / 10 for k in range(10)])
    assert rates(make(epochs=1, schedule="triangular")) == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])
