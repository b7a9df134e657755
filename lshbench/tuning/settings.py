"""What a study does: the keys of ``tune``, and the checks of those that ``choose`` has, too."""

from __future__ import annotations

from typing import Any, Literal, cast, get_args

from lshbench.errors import wrong_value
from lshbench.tuning.space import read_space

Sampler = Literal["tpe", "random"]
Relevant = Literal["auto", "labels", "neighbors"]
MEASURES = ("mAP", "P@10", "P@50", "MRR", "R-precision")


class Settings:
    """What a study searches, how long, and what it judges by: the keys of an option in ``conf/tune``."""

    def __init__(
        self,
        search: dict[str, Any],
        trials: int,
        measure: str,
        relevant: str,
        validation: float,
        queries: int,
        seeds: int,
        sampler: str,
    ) -> None:
        """Check the values.

        Args:
            search: keys and the values to try (:func:`lshbench.tuning.space.read_space`).
            trials: configurations tried.
            measure: what the best configuration is best by.
            relevant: what makes a gallery item relevant to a validation query: its ``labels``; that it is one of the
                query's nearest ``neighbors``; ``auto``: the run's rule, but neighbors where that goes by labels and the
                method is trained without, and is to know of none.
            validation: the part of the training set that validation queries are cut from.
            queries: validation queries at most.
            seeds: fits of each configuration, with seeds from ``seed`` on, whose mean counts.
            sampler: ``tpe`` tries more of what did well, ``random`` draws without looking.

        Raises:
            UsageError: a value that can't be used.
        """
        self.space = read_space(search)
        for key, count in (("trials", trials), ("seeds", seeds)):
            if count < 1:
                raise wrong_value(f"tune.{key}", count, "at least 1")
        if sampler not in get_args(Sampler):
            raise wrong_value("tune.sampler", sampler, " or ".join(get_args(Sampler)))
        self.trials, self.measure, self.validation = trials, check_measure("tune.measure", measure), validation
        self.queries, self.seeds = queries, seeds
        self.relevant = check_validation("tune", validation, queries, relevant)
        self.sampler = cast(Sampler, sampler)


def check_measure(key: str, measure: str) -> str:
    """Return what is compared, which is kept for each query.

    Args:
        key: of the configuration, such as ``tune.measure``.
        measure: its value.

    Raises:
        UsageError: there is none of that name.
    """
    if measure not in MEASURES:
        raise wrong_value(key, measure, " or ".join(MEASURES))
    return measure


def check_validation(group: str, validation: float, queries: int, relevant: str) -> Relevant:
    """Check the part of the training set to judge on, and return what is relevant there.

    Args:
        group: whose keys they are, ``tune`` or ``choose``.
        validation: the part of the training set that validation queries are cut from.
        queries: validation queries at most.
        relevant: what makes a gallery item relevant to one of them.

    Raises:
        UsageError: a value that can't be used.
    """
    if not 0 < validation <= 0.5:
        raise wrong_value(f"{group}.validation", validation, "more than 0, and at most 0.5")
    if queries < 1:
        raise wrong_value(f"{group}.queries", queries, "at least 1")
    if relevant not in get_args(Relevant):
        raise wrong_value(f"{group}.relevant", relevant, " or ".join(get_args(Relevant)))
    return cast(Relevant, relevant)
