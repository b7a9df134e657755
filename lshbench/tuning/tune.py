"""A study from its first trial to its winner."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lshbench.config import check_root, identity
from lshbench.errors import UsageError
from lshbench.inputs import Inputs
from lshbench.run_folder import computing
from lshbench.runtime.cache import cache_dir
from lshbench.runtime.shared_work import sharing
from lshbench.runtime.threads import available_cores, set_threads
from lshbench.system import System
from lshbench.tuning.settings import Settings
from lshbench.tuning.space import written
from lshbench.tuning.study import Outcome, Study, Trial
from lshbench.tuning.validation import Judge, rule_of_trials
from lshbench.types import Progress

log = logging.getLogger(__name__)

Configure = Callable[[dict[str, Any], int], dict[str, Any]]
"""From values by key and a seed to a run's resolved configuration."""


@dataclass(frozen=True)
class Tuned:
    """What a study came to.

    Attributes:
        folder: of the study.
        trials: in order.
        as_given: the configuration without any value of the space.
        judge: what they were judged by.
    """

    folder: Path
    trials: list[Trial]
    as_given: Trial
    judge: Judge

    @property
    def best(self) -> Trial:
        """The best trial, the first of equal ones; the configuration as given where none is better."""
        tried = [self.as_given, *self.trials]
        return max(tried, key=lambda trial: -1.0 if trial.outcome.quality is None else trial.outcome.quality)


def tune(configure: Configure, seed: int, settings: Settings, progress: Progress) -> Tuned:
    """Try configurations, but for those that the same study has tried before.

    Args:
        configure: composes a trial's configuration.
        seed: of the cut, of what is tried, and of each trial's first fit.
        settings: of the study.
        progress: receives the progress of long work.

    Raises:
        UsageError: wrong use, before any trial wherever it can be seen that early.
    """
    config = configure({}, seed)
    check_root(config)
    try:
        configure({key: part.example for key, part in settings.space.items()}, seed)
    except UsageError as error:
        raise UsageError(f"tune.search: a key that this configuration lacks: {error}") from error
    inputs = Inputs.from_config(config, config["threads"] or available_cores(), cache_dir(config["cache"]))
    method = System.from_config(config).method
    set_threads(inputs.threads)
    data = inputs.open(progress)
    rule = rule_of_trials(inputs.relevance, settings.relevant, method.supervision)
    part, most, measure = settings.validation, settings.queries, settings.measure
    judge = Judge.of(data, inputs, part=part, most=most, rule=rule, measure=measure, progress=progress)
    fingerprint = data.dataset.fingerprint(data.selection.train)
    run = identity(config, method.in_effect(), fingerprint, inputs.encoder(data, progress)).run
    name = study_name(run, settings)
    folder = Path(config["output"]) / "tuning" / f"{data.dataset.name}-{config['method']['name']}-{name}"

    def quality(values: dict[str, Any]) -> float:
        found = []
        for number in range(seed, seed + settings.seeds):
            system = System.from_config(configure(values, number))
            wanted = rule_of_trials(inputs.relevance, settings.relevant, system.method.supervision)
            if type(wanted) is not type(rule):
                raise UsageError(
                    "tune.relevant='auto': expected labels or neighbors, as only some of the methods tried are trained "
                    "with labels"
                )
            found.append(judge.quality(system, progress))
        return sum(found) / len(found)

    # Of two processes that come to the same study, the second waits and finds its trials.
    with computing(Path(config["output"]), f"tuning-{name}"), sharing(inputs.cache / "shared_work", inputs.threads):
        study = Study(folder, settings.space, settings.sampler, seed)
        trials = study.trials()[: settings.trials]
        with progress("tuning", total=1 + settings.trials, unit="configurations") as advance:
            begun = time.monotonic()
            as_given = study.as_given or study.tell_as_given(Outcome("finished", quality({}), time.monotonic() - begun))
            log.info("as given: %s; %d trials were made before", shown(as_given, settings.measure), len(trials))
            advance(1 + len(trials))
            while len(trials) < settings.trials:
                asked, values = study.ask()
                same = next((one for one in trials if one.values == values and one.outcome.same_as is None), None)
                outcome = _outcome(quality, values) if same is None else replace(same.outcome, same_as=same.number)
                trials.append(study.tell(asked, values, outcome))
                log.info("trial %d: %s", trials[-1].number, shown(trials[-1], settings.measure))
                advance(1)
    return Tuned(folder, trials, as_given, judge)


def _outcome(quality: Callable[[dict[str, Any]], float], values: dict[str, Any]) -> Outcome:
    """Return what became of a trial; no error of it ends the study."""
    begun = time.monotonic()
    try:
        return Outcome("finished", quality(values), time.monotonic() - begun)
    except UsageError as error:
        return Outcome("refused", None, time.monotonic() - begun, str(error))
    except Exception as error:
        log.debug("a trial failed", exc_info=error)
        return Outcome("failed", None, time.monotonic() - begun, f"{type(error).__name__}: {error}")


def study_name(run: str, settings: Settings) -> str:
    """Return what tells studies apart: the run that is tuned, what is searched and how, and the code that judges.

    Args:
        run: the identity of the configuration as given.
        settings: of the study, whose number of trials may grow.
    """
    kept = {key: value for key, value in vars(settings).items() if key != "trials"}
    code = [path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("*.py"))]
    return hashlib.sha256(json.dumps([run, repr(kept), code]).encode()).hexdigest()[:8]


def shown(trial: Trial, measure: str) -> str:
    """Return a trial's result in one line."""
    values = ", ".join(f"{key}={written(value)}" for key, value in trial.values.items())
    outcome = trial.outcome
    if outcome.quality is None:
        return f"{outcome.state}: {outcome.reason} ({values})"
    return f"{measure} {outcome.quality:.4f}" + (f" ({values})" if values else "")
