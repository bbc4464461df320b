"""Prepare a training run: read and check everything that it needs, and write nothing."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from clipbert_cli.build import Setup
from clipbert_cli.contradictions import check_training_recipe
from clipbert_cli.cores import available_cores
from clipbert_cli.loading.loader import BatchLoader
from clipbert_cli.loading.mixture import MixedDataset, Mixture
from clipbert_cli.loading.order import TrainingBatches
from clipbert_cli.printable import plural
from clipbert_cli.recipe.load import load_recipe
from clipbert_cli.recipe.schema import Recipe
from clipbert_cli.runs.folder import RunFolder
from clipbert_cli.runtime.distributed import World, start_world
from clipbert_cli.train.plan import Plan
from clipbert_cli.train.resume import Resumption, find_resumption
from clipbert_cli.train.training import Training

logger = logging.getLogger("clipbert")


def plan_training(setup: Setup, data: MixedDataset, resumption: Resumption | None) -> tuple[Plan, BatchLoader]:
    """Return how long training runs, and this process's batches in a new random order each epoch."""
    train = setup.recipe.train
    # A resumed run keeps its global batch, so that it may continue with another number of processes.
    begun = resumption.global_batch if resumption else None
    step_size = begun or train.batch_size * train.gradient_accumulation_steps * setup.world.size
    mixture = Mixture([len(part) for part in data.parts], step_size)
    plan = Plan.make(train, groups=len(mixture), global_batch=step_size, seed=setup.recipe.seed)
    order = TrainingBatches(
        mixture,
        batch_size=train.batch_size,
        epochs=plan.epochs,
        seed=setup.recipe.seed,
        shard=setup.world.shard,
        after=resumption.step if resumption else 0,
    )
    return plan, setup.batches(data, order, labelled=True)


def too_few_cores(workers: int, processes: int) -> str:
    """Return a warning if the loading processes of this machine outnumber the cores that they may use, else ""."""
    cores, loading = available_cores(), workers * processes
    if loading <= cores:
        return ""
    each = f" ({processes} processes with data.workers={workers} each)" if processes > 1 else ""
    return (
        f"{plural(loading, 'loading process', 'es')}{each} share {plural(cores, 'core')}, so decoding will be slow: "
        "give the job more cores (SLURM: --cpus-per-task for sbatch and srun), or lower data.workers"
    )


def prepare_training(
    recipe: Recipe, run: Path, *, world: World | None = None, resume: bool = False, must_be_new: bool = True
) -> Training:
    """Read and check everything that a run needs.

    Args:
        world: the processes that train together; default: this one, or those that its launcher started.
        resume: continue the run that is in the folder.
        must_be_new: refuse a folder that exists. A dry run or a profile writes nothing there and may use one.

    Raises:
        ClipbertError: one of the recipe's files, media or weights is missing or wrong.
    """
    begin = time.monotonic()
    for warning in check_training_recipe(recipe):
        logger.warning(warning)
    world = world or start_world()
    folder = RunFolder.existing(run) if resume else RunFolder.absent(run) if must_be_new else RunFolder(run)
    resumption = None
    if resume:
        own = load_recipe(folder.recipe)
        resumption = world.main_first(lambda: find_resumption(folder, own=own, given=recipe))
    setup = Setup.for_training(recipe, world, begun=folder if resume else None)
    data = setup.training_data()
    plan, train_loader = plan_training(setup, data, resumption)
    validation = setup.split("val", setup.task.check_truth) if recipe.data.splits["val"] else None
    for warning in setup.check_columns():
        logger.warning(warning)
    # Last: it is about the training, and whoever lacks a file of the recipe has other worries.
    if message := too_few_cores(recipe.data.workers, world.processes_here):
        logger.warning(message)
    model, reports = setup.model(resumed=resumption.checkpoint if resumption else None)
    black = setup.changed(data={"black_frames": True})
    return Training(
        setup=setup,
        folder=folder,
        resumption=resumption,
        model=model,
        reports=reports,
        plan=plan,
        groups=[group for part in data.parts for group in part.groups],
        train_loader=train_loader,
        validation=setup.evaluation(validation) if validation else None,
        val_examples=validation.examples if validation else (),
        # Where media are ranked, all of them would look the same with black frames.
        blind_validation=None if validation is None or black.task.ranks_media else black.evaluation(validation),
        begin=begin,
    )
