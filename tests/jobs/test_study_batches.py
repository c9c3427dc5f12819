"""Which jobs a study becomes, and what each of them waits for."""

import pytest

from hpcule.config.errors import UsageError
from hpcule.config.tree import build_config
from hpcule.jobs.limits import Limits
from hpcule.jobs.site import SiteConfig
from hpcule.jobs.study_batches import StudyBatches, check_jobs
from hpcule.study.config import StudyConfig
from hpcule.study.grid import StudySamples, expand


def grid(**settings):
    config = build_config(
        StudyConfig, {"name": "toy", "data": "digits", "method": "pil", "preset": "smoke", **settings}
    )
    return expand(config, {"digits": StudySamples(100_000, training="a", test="b")})


def arrange(found, *, missing=None, queued=None, per_job=lambda workers: 1, limits=None):
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
    plan = arrange(found, per_job=lambda workers: 4)
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


@pytest.mark.parametrize("recipes", [["plain"], ["plain", "crop-flip", "mix-0.5"]])
@pytest.mark.parametrize("per_job", [{1: 1, 2: 1}, {1: 4, 2: 2}, {1: 3, 2: 5}])
def test_a_job_has_victims_of_one_number_of_workers(recipes, per_job):
    found = grid(seeds=[0, 1, 2], recipes=recipes, factors={"victim.workers": [1, 2]})
    plan = arrange(found, per_job=per_job.__getitem__)
    seen = {key: batch.workers for batch in plan.batches for keys in batch.items for key in keys}
    assert seen == {**dict.fromkeys(found.crafts, 1), **{key: victim.workers for key, victim in found.victims.items()}}
    for key, crafts in waits_for(plan).items():
        assert crafts >= (set(found.victims[key].crafts) if key in found.victims else set())
    if per_job == {1: 1, 2: 1}:
        assert waits_for(plan) == {
            **{key: set() for key in found.crafts},
            **{key: set(victim.crafts) for key, victim in found.victims.items()},
        }


def test_crafts_whose_victims_of_one_number_are_partly_done_keep_the_others_in_step():
    found = grid(seeds=[0, 1, 2], recipes=["plain", "crop-flip"], factors={"victim.workers": [1, 2]})
    first, second, _ = found.crafts
    done = {
        key
        for key, victim in found.victims.items()
        if (victim.crafts, victim.workers) in (((first,), 1), ((second,), 2))
    }
    plan = arrange(found, missing={*found.crafts, *found.victims} - done)
    expected = {key: set(victim.crafts) for key, victim in found.victims.items() if key not in done}
    assert waits_for(plan) == {**{key: set() for key in found.crafts}, **expected}


@pytest.mark.parametrize(
    ("site", "victim", "message"),
    [
        (
            {"victim": {"nodes": 3}},
            {"workers": 2},
            r"3 is no multiple of 2; set nodes .* to 2 ranks, or leave both out",
        ),
        ({"victim": {"tasks_per_node": 2}}, {"workers": 3}, r"2 is no multiple of 3; set nodes and tasks_per_node in"),
        ({"victim": {"nodes": 4}}, {"workers": 2, "engine": "deepspeed"}, r"here 4, and victim.workers=2; set nodes"),
        (
            {"victim": {"tasks_per_node": 4}, "victims_per_job": 1},
            {"workers": 2},
            r"victims_per_job=1: of the 4 ranks of a job, 2 would train nothing; leave it out, or",
        ),
    ],
)
def test_a_site_whose_jobs_do_not_fit_the_victims_is_refused(site, victim, message):
    victims = list(grid(victim=victim).victims.values())
    with pytest.raises(UsageError, match=message):
        check_jobs(build_config(SiteConfig, site), victims)


@pytest.mark.parametrize("site", [{}, {"victim": {"nodes": 4}}, {"victim": {"nodes": 2}, "victims_per_job": 3}])
def test_a_site_with_ranks_for_all_victims_of_a_job_is_not(site):
    check_jobs(build_config(SiteConfig, site), list(grid(victim={"workers": 2}).victims.values()))


def test_nothing_missing_is_no_report():
    assert not arrange(grid(), missing=[]).batches
