"""The folder of a training run: begun, checkpointed, resumed, finished; and the model's file."""

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files import read_json, write_json, write_text, writing
from .arithmetic import note_change


def open_run(out: Path, run: dict[str, Any], resume: bool, arithmetic: str) -> None:
    """Begin a run, or make sure that what an earlier one left can be gone on with.

    `arithmetic` is the precision that is really used here. It is recorded beside the one asked for and may change: a run can
    move to a machine that calculates otherwise.
    """
    left = read_json(out / "run.json") if (out / "run.json").exists() else None
    if left is not None and not resume:
        raise ConfigError(f"{out} already holds a run; pass --resume to go on with it, or another --out")
    if left is not None:
        refuse_changes(out, left, run)
        if any(out.glob("checkpoint-*")):
            note_change(left.get("arithmetic"), arithmetic)
        if (out / "model.safetensors").exists():  # what was killed while it tidied up
            discard_checkpoints(out)
    else:
        write_json(out / "run.json", {**run, "arithmetic": arithmetic, "versions": versions()})


def refuse_changes(out: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise ConfigError if a run that is to go on was begun with other settings."""
    differ = [key for key in now if json.dumps(before.get(key)) != json.dumps(now[key])]
    changed = [f"{key} was {before.get(key)}, is {now[key]}" for key in differ]
    if changed:
        raise ConfigError(f"{out} was begun with other settings: {'; '.join(changed)}; resume with the same, or another --out")


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    return {name: version(name) for name in ("compatlearn", "torch", "torchvision", "timm", "accelerate", "numpy")}


def save_checkpoint(accelerator: Any, out: Path, epoch: int) -> None:
    """`checkpoint-<epochs done>`: written under another name, renamed when whole, older ones removed after."""
    partial = out / "partial-checkpoint"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    accelerator.wait_for_everyone()
    with writing(partial):
        accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        older = list(out.glob("checkpoint-*"))
        partial.rename(out / f"checkpoint-{epoch}")
        for folder in older:
            shutil.rmtree(folder)


def load_checkpoint(accelerator: Any, out: Path) -> int:
    """Epochs that the newest checkpoint has behind it, after loading it; 0 without one."""
    done = max((int(folder.name.split("-")[1]) for folder in out.glob("checkpoint-*")), default=0)
    if done:
        accelerator.load_state(str(out / f"checkpoint-{done}"))
    return done


def discard_checkpoints(out: Path) -> None:
    """Remove what a finished run needs no more."""
    for left in out.glob("*checkpoint*"):
        shutil.rmtree(left)


def keep_log(out: Path, epochs: int) -> None:
    """Drop what the log says of epochs that no checkpoint has kept: they are run again."""
    log = out / "log.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True) if log.exists() else []
    write_text(log, "".join(lines[:epochs]))
