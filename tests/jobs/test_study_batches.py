"""Which jobs a study becomes, and what each of them waits for."""

import pytest

from hpcule.config.tree import build_config
from hpcule.jobs.limits import Limits
from hpcule.jobs.study_batches import StudyBatches
from hpcule.study.config import StudyConfig
from hpcule.study.grid import StudySamples, expand


def grid(**settings):
    config = build_config(
        StudyConfig, {"name": "toy", "data": "digits", "method": "pil", "preset": "smoke", **settings}
    )
    return expand(config, {"digits": StudySamples(100_000, training="a", test="b")})


def arrange(found, *, missing=None, queued=None, per_job=1, limits=None):
    keys = [*found.crafts, *found.victims] if missing is None else missing
    return StudyBatches(found, keys, queued or {}, path="DIR", per_job=per_job, limits=limits or Limits())


def waits_for(plan):
    """What each item waits for: names of items, through the tasks of the arrays."""
    job_of = {f"{{{batch.name}}}_{index}": keys for batch in plan.batches for index, keys in enumerate(batch.items)}
    found = {}
    for batch in plan.batches[:-1]:
        kind, *names = batch.after.split(":")
        for index, keys in enumerate(batch.items):
            full = [f"{names[0]}_{index}"] if kind == "aftercorr" else names
            found |= {key: {key for name in full for key in job_of[name]} for key in keys}
    return found


@pytest.mark.parametrize("seeds", [[0], [0, 1, 2], list(range(40))])
@pytest.mark.parametrize("recipes", [["plain"], ["plain", "crop-flip", "mix-0.5"]])
@pytest.mark.parametrize("limit", [7, 1001])
def test_a_victim_waits_for_its_own_craft_and_a_control_for_nothing(seeds, recipes, limit):
    found = grid(seeds=seeds, recipes=recipes)
    plan = arrange(found, limits=Limits(array=limit))
    expected = {key: set(victim.crafts) for key, victim in found.victims.items()}
    assert waits_for(plan) == {**{key: set() for key in found.crafts}, **expected}
    assert max(batch.tasks for batch in plan.batches) <= limit
    assert plan.batches[-1].after.split(":")[1:] == [f"{{{batch.name}}}" for batch in plan.batches[:-1]]
    assert len({batch.name for batch in plan.batches}) == len(plan.batches)


def test_as_few_arrays_as_crafts_or_victims_of_a_craft_need():
    many_crafts = arrange(grid(seeds=list(range(20)), matched_noise=True))
    names = [batch.name for batch in many_crafts.batches]
    assert names == ["craft", "victim", "victim-2", "victim-3", "report"]
    many_victims = arrange(
        grid(seeds=[0], factors={"victim.learning_rate": [n / 1000 for n in range(1, 13)]}), limits=Limits(array=10)
    )
    assert [batch.tasks for batch in many_victims.batches] == [1, 10, 10, 4, 10, 2, 1]


def test_victims_of_a_tuned_craft_wait_until_all_candidates_have_ended():
    found = grid(seeds=[0], method="em", rates=["tuned"])
    plan = arrange(found)
    (waiting,) = [batch for batch in plan.batches if batch.after.startswith("afterany") and batch.stage == "victim"]
    assert waiting.after == "afterany:" + ":".join(f"{{craft}}_{index}" for index in range(5))


def test_crafts_in_the_queue_are_waited_for_by_their_number():
    found = grid(seeds=[0])
    (craft,) = found.crafts
    plan = arrange(found, missing=found.victims, queued={craft: "77_4"})
    assert sorted({batch.after for batch in plan.batches[:-1]}) == ["", "afterok:77_4"]
    assert plan.batches[-1].after.endswith(":77")


def test_victims_share_jobs():
    found = grid(seeds=list(range(5)))
    plan = arrange(found, per_job=4)
    jobs = [keys for batch in plan.batches[:-1] if batch.stage == "victim" for keys in batch.items]
    assert sorted(map(len, jobs)) == [1, 2, 4, 4, 4]
    for batch in plan.batches[:-1]:
        for keys in batch.items:
            needed = {craft for key in keys if key in found.victims for craft in found.victims[key].crafts}
            assert len(needed) == (batch.after.count("{craft}") if batch.stage == "victim" else 0)


def test_what_is_beyond_the_limit_of_jobs_is_left_out_with_all_that_waits_for_it():
    found = grid(seeds=list(range(10)))
    for room in range(1, 42):
        plan = arrange(found, limits=Limits(jobs=room))
        done = {key for batch in plan.batches for keys in batch.items for key in keys}
        assert sum(batch.tasks for batch in plan.batches) <= room
        assert plan.left_out == 40 - len(done)
        assert all(set(found.victims[key].crafts) <= done for key in done & set(found.victims))


def test_nothing_missing_is_no_report():
    assert not arrange(grid(), missing=[]).batches
