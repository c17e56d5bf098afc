"""`compatlearn train`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..config import TrainConfig, check
from ..errors import IncompatibleError
from .columns import Columns
from .out import check_out_folder


def train(
    *,
    data: str,
    backbone: str,
    out: Path,
    pseudo: Path | None = None,
    features: Path | None = None,
    method: str | None = None,
    independent: Path | None = None,
    resume: bool = False,
    columns: Annotated[Columns, Parameter(name="*")] = Columns(),  # noqa: B008
    config: Annotated[TrainConfig, Parameter(name="*")] = TrainConfig(),  # noqa: B008
) -> int:
    """A model whose queries search the old vectors; without --pseudo or --features an independent one.

    ```
    compatlearn train --data images --backbone resnet50 --pseudo pseudo.safetensors --out runs/new
    compatlearn train --data images --backbone resnet50 --features features/old-train --method l2 --out runs/new
    ```

    Args:
        data: as for `extract`; the training split.
        backbone: a timm or torchvision name, small_resnet32, or `module:function` that returns a torch module.
        out: folder of the run.
        pseudo: pseudo classifier to train against.
        features: old features of the training images, matched by id, for --method; instead of --pseudo.
        method: with --features: how they are used; by default random-walk.
        independent: with --method bt2: an independently trained model's features of the training images.
        resume: continue an interrupted run; the result is that of an uninterrupted one.
    """
    inputs = {"--data": data, "--pseudo": pseudo, "--features": features, "--independent": independent}
    check_out_folder(out, inputs, "run")
    from accelerate import PartialState

    from ..data.images import load_pixels
    from ..data.sources import open_images
    from ..files import write_json
    from ..training.train import train as run
    from .loss import load_loss

    check(config)
    images, pixels, skipped = load_pixels(open_images(data), config.resize, tolerance=config.tolerance)
    loss = load_loss(images, config, pseudo, features, method, independent, columns)
    try:
        run(images, config, out, backbone=backbone, loss=loss, pixels=pixels, resume=resume)
    except IncompatibleError as error:
        raise IncompatibleError(str(error).replace("dimension=", "--dimension ")) from error
    processes = PartialState()  # of `accelerate launch`; usually this one alone
    if processes.is_main_process:
        write_json(out / "skipped.json", skipped)
        classes = f"{len(images)} images of {len(images.classes)} classes"
        print(f"{out}: trained on {classes}, {len(skipped)} unreadable ones skipped")
    processes.destroy_process_group()
    return 0
