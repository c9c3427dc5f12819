"""A tournament of candidates against attackers, within a budget of time.

A round has more attackers than the one before it, the cheapest first, and after each round the worse half of the
candidates is dropped (successive halving: Jamieson and Talwalkar, AISTATS 2016, arXiv 1502.07943). In the end the best
method is tried at its weaker strengths: of two that protect as well, the one that is seen less is better.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

from hpcule.config.errors import DataError, StoppedError, UsageError
from hpcule.config.tree import to_tree
from hpcule.craft.config import CraftConfig
from hpcule.craft.method import Step
from hpcule.craft.run import craft
from hpcule.craft.table import configure
from hpcule.data.subset import at_most
from hpcule.evaluation.bench import Bench, Setup, prefixed
from hpcule.evaluation.candidates import Candidate, RecommendConfig
from hpcule.evaluation.cost import victim_seconds
from hpcule.evaluation.evaluate import Victims, evaluate, training_data
from hpcule.evaluation.pictures import Pictures
from hpcule.evaluation.recommendation import RecommendationDocument, Standing, recommendation
from hpcule.evaluation.results import ProtectionDocument
from hpcule.evaluation.suites import EvaluateConfig
from hpcule.store.read import StoreReader
from hpcule.store.vault import Vault
from hpcule.victim.countermeasures.fitted import fitted_steps
from hpcule.victim.recipe import Recipe
from hpcule.victim.training import LONGER
from hpcule.world.signals import StopFlag

ATTACKERS = (2, 4, 8, 12)
"""Number of attackers of the first rounds; the last round has all."""
FINALISTS = 3
"""Largest number of methods with a report of their own; the best one has reports of its weaker strengths, too."""
LONGEST = 0.25
"""Share of what is left of a round that a craft may take: one slow method must not keep out all others."""
REPORTING = 0.05
"""Share of the budget that is left for the reports."""
ESTIMATING = 0.02
"""Share of the budget after which no other attacker is trained for a moment."""


Evaluated = dict[str, tuple[ProtectionDocument, Pictures]]
"""Results and samples to show of stores, by name."""


class Deadline(StopFlag):
    """Set by a signal, or by the clock from `end` of time.monotonic on."""

    end = float("inf")

    def __bool__(self) -> bool:
        return super().__bool__() or time.monotonic() >= self.end


def recommend(
    config: RecommendConfig, minutes: float, data: str, setup: Setup
) -> tuple[RecommendationDocument, EvaluateConfig, Evaluated]:
    """Craft candidates and train attackers on them until the time is spent.

    A craft that the clock stops has written a checkpoint, and so has a victim: the same command with a larger budget
    goes on where this one was.

    Args:
        config: who takes part, and how they are measured.
        minutes: the budget.
        data: how the source is called on the command line.
        setup: all clean samples, opened as the configuration says; the stores go to its folder `stores`, the victims'
            results to `cells`.

    Returns:
        The results, how the finalists were measured, and the results of each.

    Raises:
        DataError: no method can take these samples.
        UsageError: the time did not suffice for any candidate.
        StoppedError: stopped by a signal.
    """
    tournament = _Tournament(config, minutes, data, setup)
    contestants, unreached = Candidate.strongest(config), list[str]()
    rounds = tournament.rounds(len(contestants))
    standings, tried = list[Standing](), rounds[0]
    for number, attackers in enumerate(rounds):
        # Halves of the time are for many; a single candidate has no later round to leave time for.
        tournament.give_time(number if len(contestants) > 1 else len(rounds) - 1, len(rounds))
        found = tournament.play(contestants, attackers)
        if not found and number == 0:
            # All that is left for the first one: a measurement of one says more than of none.
            tournament.give_time(len(rounds) - 1, len(rounds))
            found = tournament.play_first(contestants, attackers)
        if not found:
            break
        if number == 0:
            unreached = [one.name for one in contestants if not tournament.has_met(one, found)]
        if number == len(rounds) - 1:
            found[1:1] = tournament.play(found[0].candidate.weaker(config), attackers)
        played = {one.candidate for one in found}
        standings, tried = [*found, *(one for one in standings if one.candidate not in played)], attackers
        contestants = [one.candidate for one in found[: math.ceil(len(found) / 2)]]
    return tournament.end(standings, tried, unreached)


class _Tournament:
    def __init__(self, config: RecommendConfig, minutes: float, data: str, setup: Setup) -> None:
        self.began, self.seconds, self.stop = time.monotonic(), 60 * minutes, Deadline()
        samples, subset = at_most(setup.source, config.samples)
        self.config, self.data = config, data
        self.opening = replace(config.opening, subset=subset)
        self.setup, self.world = replace(setup, source=samples, stop=self.stop), setup.world
        self.evaluation = config.evaluation(samples)
        self.benches, self.refused = dict[Candidate, Bench](), dict[str, str]()
        self.cost, self.repeated, self.playing = dict[Recipe, float](), dict[Recipe, bool](), 0

    def rounds(self, candidates: int) -> list[tuple[Recipe, ...]]:
        """The attackers of each round, the cheapest first. Last come those that were not timed, which count as much as
        the dearest that was, and those with steps that are fitted, which takes nobody knows how long. Reports how many
        victims that makes, and what they take."""
        setup, recipes = self.setup, self.evaluation.recipes
        known = self._costs(recipes)
        cost = self.cost = {recipe: known.get(recipe, max(known.values())) for recipe in recipes}

        def dear(recipe: Recipe) -> tuple[bool, bool, bool, float]:
            fitted = bool(fitted_steps(recipe.countermeasures))
            return recipe.share is not None, fitted, recipe not in known, cost[recipe]

        ordered = sorted(recipes, key=dear)
        counts = [number for number in ATTACKERS if number < len(ordered)] + [len(ordered)]
        # Each control is trained once, and in each round half of the candidates meet the attackers that are new.
        trained = [
            (recipe, 2 + math.ceil(candidates / 2 ** sum(count <= place for count in counts)))
            for place, recipe in enumerate(ordered)
        ]
        if setup.plan:
            total = sum(cost[recipe] * times for recipe, times in trained) * len(self.evaluation.seeds)
            victims = sum(times for _, times in trained) * len(self.evaluation.seeds)
            setup.plan(victims, total / self.world.size)
        return [tuple(ordered[:count]) for count in counts]

    def give_time(self, number: int, rounds: int) -> None:
        """Let the clock stop a round after half of the time that is left, and the last one where reports begin."""
        share = 1 - REPORTING if number == rounds - 1 else 1 - 0.5 ** (number + 1)
        self.stop.end = self.began + share * self.seconds

    def play(self, contestants: Sequence[Candidate], attackers: tuple[Recipe, ...]) -> list[Standing]:
        """Craft for the candidates and train these attackers on them, as far as time suffices; the best one first."""
        found, stopped = [], StoppedError("stopped by a signal: run the same command again to continue")
        self.playing, end = len(contestants), self.stop.end
        for candidate in contestants:
            try:
                if candidate not in self.benches:
                    self.stop.end = end - (1 - LONGEST) * max(0.0, end - time.monotonic())
                    self.benches[candidate] = self._crafted(candidate)
                self.stop.end = end
                victims = Victims(replace(self.evaluation, recipes=attackers), self.benches[candidate])
                recipes = victims.train(may_repeat=self.may_repeat)
            except (DataError, UsageError) as error:
                self.refused[candidate.name] = str(error)
            except StoppedError as error:
                stopped = error
            else:
                found.append(Standing(candidate, recipes))
            self.stop.end = end
            if self._agreed(bool(self.stop)):
                break
        if self._agreed(bool(self.stop.name)):
            raise stopped
        return sorted(found, key=lambda standing: standing.rank)

    def play_first(self, contestants: Sequence[Candidate], attackers: tuple[Recipe, ...]) -> list[Standing]:
        """The same for the first candidate alone that can be measured."""
        for candidate in contestants:
            found = self.play([candidate], attackers)
            if found or self._agreed(bool(self.stop)):
                return found
        return []

    def may_repeat(self, recipe: Recipe) -> bool:
        """Whether an attacker whose clean control has not learnt is trained again with more steps, for all candidates
        or for none: if that can be done in what is left of the round in which it first comes up."""
        if recipe not in self.repeated:
            # The two controls, and all that play this round.
            victims = (2 + self.playing) * len(self.evaluation.seeds)
            seconds = LONGER * self.cost[recipe] * victims / self.world.size
            late = time.monotonic() + seconds > self.stop.end
            self.repeated[recipe] = not self._agreed(late)
        return self.repeated[recipe]

    def has_met(self, candidate: Candidate, found: Sequence[Standing]) -> bool:
        """Whether a candidate was measured or refused."""
        return candidate.name in self.refused or any(one.candidate == candidate for one in found)

    def end(
        self, standings: Sequence[Standing], tried: tuple[Recipe, ...], unreached: Sequence[str]
    ) -> tuple[RecommendationDocument, EvaluateConfig, Evaluated]:
        """The results, with a report of each finalist."""
        if not standings and self.refused:
            raise DataError("no method can take these samples: " + "; ".join(self.refused.values()))
        if not standings:
            raise UsageError(
                f"--budget {self.seconds / 60:g}: no candidate was measured in these minutes; what was done is kept: "
                "the same command with a larger budget goes on there"
            )
        self.stop.end = float("inf")
        evaluation = replace(self.evaluation, recipes=tried)
        finalists = [one.candidate for one in standings if len(one.recipes) == len(tried)]
        evaluated: Evaluated = {}
        for candidate in finalists[: FINALISTS + len(self.config.levels) - 1]:
            evaluated[candidate.name] = evaluate(evaluation, self.benches[candidate], self.may_repeat)
        untried = [recipe.title for recipe in self.evaluation.recipes if recipe not in tried]
        results = recommendation(
            {name: results for name, (results, _) in evaluated.items()},
            standings,
            minutes=self.seconds / 60,
            untried=untried,
            left_out=self.evaluation.left_out,
            unreached=unreached,
            refused=self.refused,
        )
        return results, evaluation, evaluated

    def _costs(self, recipes: Sequence[Recipe]) -> dict[Recipe, float]:
        """What a victim of each recipe takes, as far as time suffices to train each for a moment: a linear probe and
        another one, then all probes, which see each sample once. Ranks share the recipes out."""
        data, world = training_data(self.evaluation, self.setup.source), self.world
        self.setup.tell(f"training {len(recipes)} attackers for a moment each, to know what they take")
        probes = [recipe for recipe in recipes if recipe.countermeasures.named("linear-probe")]
        others = [recipe for recipe in recipes if recipe not in probes]
        ordered, known = [*probes[:1], *others[:1], *probes[1:], *others[1:]], dict[Recipe, float]()
        for first in range(0, len(ordered), world.size):
            self.setup.report("estimate", first, len(ordered))
            own = ordered[first : first + world.size][world.rank : world.rank + 1]
            known |= victim_seconds(self.evaluation.victim, own, data, self.setup.test, world)
            if self._agreed(time.monotonic() > self.began + ESTIMATING * self.seconds):
                break
        seconds = world.gather([known.get(recipe, 0.0) for recipe in recipes])
        found = {recipe: max(of_ranks) for recipe, of_ranks in zip(recipes, zip(*seconds, strict=True), strict=True)}
        return {recipe: most for recipe, most in found.items() if most}

    def _crafted(self, candidate: Candidate) -> Bench:
        config, setup, vault = self.config, self.setup, Vault(self.setup.out / "stores" / candidate.name)
        file = {"world": to_tree(config.world), **to_tree(self.opening)}
        overrides = candidate.settings(setup.source)
        settings: CraftConfig = configure(
            candidate.method, self.data, preset=config.preset, file=file, overrides=overrides
        )
        tell = prefixed(candidate.name, setup.report)

        def progress(step: Step) -> None:
            tell(step.stage, step.done, step.total)

        craft(settings, setup.source, vault, self.world, self.stop, resume=True, report=progress)
        return setup.bench(candidate.name, StoreReader(vault))

    def _agreed(self, flag: bool) -> bool:
        """Whether it is true on any rank, which all of them learn."""
        return self.world.maximum([float(flag)])[0] > 0
