"""The training loop, and how a run is saved and resumed. Everything that depends on hardware is accelerate's."""

import json
import math
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..config import TrainConfig
from ..data.images import Images, Pixels
from ..encoders.model_file import load_learner, save_learner
from ..encoders.networks import Embedder, Learner, ModelSpec, memory_format
from ..errors import ConfigError, TrainingError, unknown
from ..extras import require
from ..locks import locked
from ..progress import track
from .arithmetic import choose_arithmetic
from .batches import TrainingSet, augment
from .runs import discard_checkpoints, keep_log, load_checkpoint, open_run, save_checkpoint


def train(
    images: Images,
    config: TrainConfig,
    out: Path,
    *,
    backbone: str,
    loss: nn.Module | None = None,
    pixels: Pixels | None = None,
    resume: bool = False,
    title: str = "training",
) -> Learner:
    """Train a model: CE(W f, y) + influence_weight · loss(f, y, rows).

    Args:
        images: the training set; labels in [0, len(images.classes)).
        config: the recipe; its defaults are the paper's.
        out: folder of the run: `model.safetensors`, `run.json`, `log.jsonl`, a checkpoint after every epoch until it is done.
        backbone: a name for `encoders.networks.build_backbone`.
        loss: called as loss(features (b, d), labels (b,), rows (b,)) → scalar; None trains independently. Parameters of its
            own are trained with the model's, persistent buffers are kept in checkpoints; neither is part of the model. If it
            has a method `check_dimension(d)`, that is called before anything is written; it raises IncompatibleError.
        pixels: (n, 3, resize, resize) decoded images; None decodes them as they are needed.
        resume: go on from the last checkpoint; the result is that of an uninterrupted run.

    Raises:
        ConfigError: `out` holds another run, or an option does not fit.
        DataError: another process writes `out`, the disk is full, or too many images cannot be read.
        IncompatibleError: the backbone gives fewer dimensions than the old features have.
        TrainingError: the loss is not finite.

    Source: Non-Inherent Feature Compatible Learning, Eq. 12 and section 4.2.
    """
    require("accelerate")
    from accelerate import Accelerator
    from accelerate.utils import DataLoaderConfiguration, set_seed

    arithmetic = choose_arithmetic(config.precision)
    accelerator = Accelerator(
        mixed_precision=arithmetic,
        log_with=_check_tracker(config.tracker),
        project_dir=out,
        dataloader_config=DataLoaderConfiguration(split_batches=True, use_seedable_sampler=True, data_seed=config.seed),
    )
    set_seed(config.seed)
    spec = ModelSpec(backbone, config.image_size, config.resize, config.dimension)
    learner = Learner(Embedder(spec), len(images.classes))
    _check_dimension(learner.embedder.dimension, loss)
    run = {"backbone": backbone, "classes": len(images.classes), "rows": len(images), **asdict(config)}
    with locked(out) if accelerator.is_main_process else nullcontext():  # one lock for all processes of a job
        if accelerator.is_main_process:  # nothing is written before everything is known to fit
            open_run(out, run, resume, arithmetic)
        accelerator.wait_for_everyone()
        if (out / "model.safetensors").exists():
            return load_learner(out / "model.safetensors")
        loader = _loader(images, config, pixels, accelerator.num_processes)
        return _fit(accelerator, learner, loss, loader, config, out, run, resume, title)


def _fit(
    accelerator: Any,
    learner: Learner,
    loss: nn.Module | None,
    loader: Any,
    config: TrainConfig,
    out: Path,
    run: dict[str, Any],
    resume: bool,
    title: str,
) -> Learner:
    """The loop."""
    weights = [*learner.parameters(), *(loss.parameters() if loss is not None else ())]
    optimizer = torch.optim.SGD(weights, lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay)
    layout = memory_format(learner.embedder.backbone, config.image_size)
    model, optimizer, loader, schedule = accelerator.prepare(
        learner.to(memory_format=layout),
        optimizer,
        loader,
        _schedule(optimizer, config, len(loader)),
    )
    compatible = _prepare_loss(loss, accelerator)
    first = load_checkpoint(accelerator, out) if resume else 0
    if accelerator.is_main_process:
        keep_log(out, first)
    if config.tracker:
        accelerator.init_trackers("compatlearn", config=run)

    for epoch in track(range(first, config.epochs), title, config.epochs, len(loader.dataset), accelerator.is_main_process):
        draws = torch.Generator().manual_seed(_draw_seed(config.seed, epoch, accelerator.process_index))
        loader.set_epoch(epoch)
        model.train()
        started, total, seen = time.monotonic(), torch.zeros(2, device=accelerator.device), 0
        for batch, labels, rows in loader:
            features, logits = model(augment(batch, config, draws).contiguous(memory_format=layout))
            class_loss = F.cross_entropy(logits, labels)
            old_loss = compatible(features, labels, rows) if compatible is not None else class_loss.new_zeros(())
            accelerator.backward(class_loss + config.influence_weight * old_loss)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            total += torch.stack([class_loss.detach(), old_loss.detach()])
            seen += len(labels)
        mean = (accelerator.reduce(total, "mean") / len(loader)).tolist()  # over the global batches
        seen = int(accelerator.reduce(torch.tensor(seen, device=accelerator.device)))
        if not all(map(math.isfinite, mean)):
            raise TrainingError(
                f"training diverged in epoch {epoch + 1} of {config.epochs}: class loss {mean[0]:.3g}, "
                f"compatible loss {mean[1]:.3g}; lower learning_rate or influence_weight, or normalise the pseudo classifier"
            )
        figures = {"class_loss": mean[0], "compatible_loss": mean[1]}
        figures["images_per_second"] = seen / (time.monotonic() - started)
        figures["unreadable"] = len(loader) * loader.batch_sampler.batch_size - seen
        accelerator.log(figures, step=epoch)
        if accelerator.is_main_process:
            with (out / "log.jsonl").open("a") as log:
                log.write(json.dumps({"epoch": epoch + 1, **figures}) + "\n")
        if epoch + 1 < config.epochs:
            save_checkpoint(accelerator, out, epoch + 1)

    trained: Learner = accelerator.unwrap_model(model)
    if accelerator.is_main_process:
        save_learner(trained, out / "model.safetensors")
        discard_checkpoints(out)
    accelerator.wait_for_everyone()
    for tracker in accelerator.trackers:
        tracker.finish()
    accelerator.free_memory()  # the process group stays: whoever started it may train again
    return trained


def _loader(images: Images, config: TrainConfig, pixels: Pixels | None, processes: int) -> Any:
    size = min(config.batch_size, len(images))
    if size % processes:
        raise ConfigError(f"batch_size {size} cannot be split over {processes} processes; make it a multiple")
    return torch.utils.data.DataLoader(
        TrainingSet(images, config.resize, pixels, config.tolerance),
        batch_size=size,
        shuffle=True,
        drop_last=True,
        collate_fn=lambda batch: batch,
        num_workers=0 if pixels is not None else config.workers,
        pin_memory=torch.cuda.is_available(),
    )


def _check_tracker(name: str | None) -> str | None:
    """The tracker's name, if accelerate knows it and it is installed."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    if name is None:
        return None
    if name not in LOGGER_TYPE_TO_CLASS:
        raise unknown("tracker", name, LOGGER_TYPE_TO_CLASS)
    if name not in [str(getattr(each, "value", each)) for each in get_available_trackers()]:
        raise ConfigError(f"tracker {name!r} is not installed; install {name}, or leave the tracker out")
    return name


def _schedule(optimizer: torch.optim.Optimizer, config: TrainConfig, batches: int) -> Any:
    if config.schedule == "one-cycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total_steps=config.epochs * batches)
    return torch.optim.lr_scheduler.StepLR(optimizer, config.step_epochs * batches)


def _prepare_loss(loss: nn.Module | None, accelerator: Any) -> nn.Module | None:
    """On the device; what it learns or remembers is part of every checkpoint."""
    if loss is None:
        return None
    if next(loss.parameters(), None) is not None:
        return accelerator.prepare(loss)  # the processes' gradients are averaged, as those of the model
    accelerator.register_for_checkpointing(loss)
    return loss.to(accelerator.device)


def _check_dimension(dimension: int, loss: nn.Module | None) -> None:
    """Ask a loss that knows how many dimensions it needs, as those of this package do."""
    check = getattr(loss, "check_dimension", None)
    if check is not None:
        check(dimension)


def _draw_seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
