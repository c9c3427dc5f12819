"""What a tournament says, in words."""

from __future__ import annotations

from hpcule.evaluation.recommend import Tournament


def paragraphs(tournament: Tournament, data: str) -> list[str]:
    """What to do next, and who could not take part.

    Args:
        tournament: what became of the methods.
        data: how the source is called on the command line.
    """
    if tournament["recommended"] is None:
        said = ["None of the methods that were tried can be recommended."]
    else:
        said = [
            f"Recommended: {tournament['recommended']}. Craft it for all samples with its authors' settings, and "
            f"measure it with a standard suite: hpcule craft {tournament['recommended']} --data {data} --out STORE"
        ]
    if tournament["unreached"]:
        said.append(
            f"Not reached within {tournament['budget_minutes']:g} minutes: {', '.join(tournament['unreached'])}. The "
            "same command with a larger --budget goes on there."
        )
    said += [f"{name} cannot take these samples: {why}." for name, why in tournament["refused"].items()]
    return said
