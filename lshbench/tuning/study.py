"""A study of Optuna's that is kept in a file: trials are asked for and told one after another."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lshbench.errors import UsageError
from lshbench.tuning.files import mend
from lshbench.tuning.settings import Sampler
from lshbench.tuning.space import Space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

FILE = "study.jsonl"
NAME = "lshbench"


State = Literal["finished", "refused", "failed"]
"""How a trial ended: ``refused`` for values that can't be used, ``failed`` by any other error."""


@dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    Attributes:
        state: how it ended.
        quality: the mean over seeds; None unless it finished.
        seconds: that it took.
        reason: why it was refused or failed.
        same_as: the number of an earlier trial that had the same values.
    """

    state: State
    quality: float | None = None
    seconds: float = 0.0
    reason: str = ""
    same_as: int | None = None


@dataclass(frozen=True)
class Trial:
    """One configuration that was tried.

    Attributes:
        number: from 0; None for the configuration as given.
        outcome: what became of it.
        values: by key, of what is searched; empty for the configuration as given.
    """

    number: int | None
    outcome: Outcome
    values: dict[str, Any] = field(default_factory=dict)


class Study:
    """Trials in a file, which another process may go on with after this one, however this one ended.

    What a trial tries depends on the seed, its number and the trials before it alone: a study that was interrupted
    comes to the same as one that was not.  One process at a time may use it.

    Args:
        folder: of the study.
        space: what is searched.
        sampler: how.
        seed: decides every draw.

    Raises:
        UsageError: the file is no study.
    """

    def __init__(self, folder: Path, space: Space, sampler: Sampler, seed: int) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space, self._sampler_name, self._seed = space, sampler, seed
        file = folder / FILE
        folder.mkdir(parents=True, exist_ok=True)
        # What a process left that died while it wrote: Optuna's lock, and half a line.
        file.with_name(f"{file.name}.lock").unlink(missing_ok=True)
        mend(file)
        try:
            storage = JournalStorage(JournalFileBackend(str(file)))
            self._study = optuna.create_study(
                storage=storage, study_name=NAME, direction="maximize", load_if_exists=True
            )
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{file} is damaged ({error}): delete it to begin again") from error

    def trials(self) -> list[Trial]:
        """Return the trials that have ended, in order."""
        ended = [one for one in self._study.get_trials(deepcopy=False) if one.state.is_finished()]
        return [Trial(one.number, Outcome(**one.user_attrs["outcome"]), one.user_attrs["values"]) for one in ended]

    @property
    def as_given(self) -> Trial | None:
        """The configuration without any value of the space; None if it was not tried yet."""
        kept = self._study.user_attrs.get("as_given")
        return None if kept is None else Trial(None, Outcome(**kept))

    def tell_as_given(self, outcome: Outcome) -> Trial:
        """Keep what the configuration without any value of the space came to, and return it."""
        self._study.set_user_attr("as_given", asdict(outcome))
        return Trial(None, outcome)

    def ask(self) -> tuple[Any, dict[str, Any]]:
        """Return the next trial, or the one that was under way when a process died, and its values by key."""
        from optuna.trial import Trial as Asked
        from optuna.trial import TrialState

        begun = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        self._study.sampler = self._sampler(begun[0].number if begun else len(self._study.get_trials(deepcopy=False)))
        asked = Asked(self._study, begun[0]._trial_id) if begun else self._study.ask()
        return asked, {key: part.suggest(asked, key) for key, part in self._space.items()}

    def tell(self, asked: Any, values: dict[str, Any], outcome: Outcome) -> Trial:
        """Keep what became of a trial, and return it."""
        from optuna.trial import TrialState

        # A trial has ended when its state says so, which is written last.
        asked.set_user_attr("values", values)
        asked.set_user_attr("outcome", asdict(outcome))
        self._study.tell(asked, outcome.quality, None if outcome.state == "finished" else TrialState.FAIL)
        return Trial(asked.number, outcome, values)

    def _sampler(self, number: int) -> BaseSampler:
        from optuna.samplers import RandomSampler, TPESampler

        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        return RandomSampler(seed) if self._sampler_name == "random" else TPESampler(seed=seed)


def require_optuna() -> None:
    """Refuse to tune where Optuna is not installed.

    Raises:
        UsageError: says how to install it.
    """
    if importlib.util.find_spec("optuna") is None:
        raise UsageError("lshbench tune: the package optuna is not installed: pip install 'lshbench[tune]'")
