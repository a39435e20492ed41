"""A sweep: Ray Tune with Optuna and ASHA around the very trainer that `recsys train` runs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from recsys import cluster
from recsys.config.run import RunConfig, dump_config, parse_config
from recsys.data.run_folder import RunFolder
from recsys.data.storage import write_text
from recsys.errors import InputError
from recsys.train.stage import require_inputs, training_error
from recsys.train.trainer import make_trainer, storage_path, use_gpu
from recsys.tune.space import Choice, any_value, read_space, to_domain, with_settings

if TYPE_CHECKING:
    from ray.tune import Callback, Tuner
    from ray.tune.experiment import Trial

logger = logging.getLogger(__name__)


def run_trial(settings: Mapping[str, object], config_tree: Mapping[str, object]) -> None:
    """One trial: the trainer's reports become the trial's."""
    from ray import tune
    from ray.tune.integration.ray_train import TuneReportCallback

    cluster.connect()
    config = with_settings(parse_config(config_tree, "sweep"), settings)
    trial = tune.get_context().get_trial_name()
    make_trainer(config, name=f"tune-{trial}", callbacks=[TuneReportCallback()]).fit()


def make_tuner(config: RunConfig, space: Mapping[str, Choice]) -> Tuner:
    """A `ray.tune.Tuner` over a space, for a run whose data stages are done.

    Raises:
        InputError: The space names no setting, or the cluster is too small.
    """
    import optuna
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search import ConcurrencyLimiter
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    first = {name: any_value(choice) for name, choice in space.items()}
    with_settings(config, first)  # a wrong name shows here, not in every trial
    search = OptunaSearch(metric="score", mode="max", seed=config.tune.seed)
    return tune.Tuner(
        # The trial itself only waits for its workers: a CPU of its own would be missing there.
        tune.with_resources(
            tune.with_parameters(run_trial, config_tree=config.model_dump(mode="json")),
            {"cpu": 0, "memory": 2**20},  # something, as Ray wants
        ),
        param_space={name: to_domain(choice) for name, choice in space.items()},
        tune_config=tune.TuneConfig(
            num_samples=config.tune.trials,
            search_alg=ConcurrencyLimiter(search, max_concurrent=config.tune.concurrent),
            scheduler=ASHAScheduler(
                time_attr="epoch",
                metric="score",
                mode="max",
                max_t=config.train.epochs + 1,  # so that a trial ends by itself after the last one
                grace_period=1,
            ),
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=storage_path(RunFolder(config.run).tune),
            verbose=0,
            callbacks=[_teller(config.tune.trials)],
        ),
    )


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _teller(total: int) -> Callback:
    """Says a line when a trial ends."""
    from ray import tune

    class Teller(tune.Callback):  # type: ignore[misc]
        done = 0

        def on_trial_complete(
            self, iteration: int, trials: list[Trial], trial: Trial, **_: object
        ) -> None:
            self.done += 1
            settings = ", ".join(f"{name}={_short(value)}" for name, value in trial.config.items())
            score = trial.last_result.get("score", float("nan"))
            logger.info("tune: trial %d of %d: score %.4f, %s", self.done, total, score, settings)

        def on_trial_error(
            self, iteration: int, trials: list[Trial], trial: Trial, **_: object
        ) -> None:
            self.done += 1
            logger.warning("tune: trial %d of %d failed: %s", self.done, total, trial.error_file)

    return Teller()


def _require_room(config: RunConfig) -> None:
    gpu = use_gpu(config)
    kind, there = ("GPU", cluster.num_gpus()) if gpu else ("CPU", cluster.num_cpus())
    cluster.require(config.train.workers, gpu=gpu)
    if config.train.workers * config.tune.concurrent > there:
        raise InputError(
            f"tune.concurrent={config.tune.concurrent}: a trial takes {config.train.workers} "
            f"{kind}s and the cluster has {there}; set tune.concurrent to at most "
            f"{there // config.train.workers} or add nodes"
        )


def tune_run(config: RunConfig, space_path: str) -> dict[str, object]:
    """Runs a sweep and writes RUN/tune/best.yaml, a config with the best settings."""
    space = read_space(space_path)
    # Where the scheduler stops a trial, Ray Train frees its workers' CPUs once it learns from the
    # dashboard's service that the trial is dead; without it the next trials would wait for ever.
    cluster.connect(dashboard=True)
    _require_room(config)
    require_inputs(config)
    results = make_tuner(config, space).fit()
    if results.num_errors == len(results):
        raise training_error(results.errors[0]) from results.errors[0]
    best = results.get_best_result("score", "max", scope="all")
    path = RunFolder(config.run).best_config
    write_text(dump_config(with_settings(config, best.config)), path)
    return {
        "trials": len(results),
        "failed": results.num_errors,
        "best": dict(best.config),
        "score": best.metrics["score"],
        "best.yaml": path,
    }
