"""Compatible losses beside a class loss, in two real processes (gloo), as sentence-transformers' trainer runs them.

In a file of its own: the spawned processes import it, and sentence-transformers would take most of their time.
"""

from pathlib import Path

import torch
import torch.distributed
from torch import nn

import compatlearn as cl

CLASSES, D_OLD, D_NEW = 5, 6, 8


class Linear(nn.Module):
    """What the losses need of a model, without a tokenizer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, D_NEW)

    def get_embedding_dimension(self) -> int:
        return D_NEW

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"sentence_embedding": self.layer(features["inputs"])}


def compatible_batch() -> tuple[Linear, cl.CompatibleLoss, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model = Linear()
    loss = cl.CompatibleLoss(model, cl.InfluenceLoss(torch.eye(CLASSES, D_OLD), scale=20.0), cl.ClassLoss(model, CLASSES))
    return model, loss, torch.randn(12, 4), torch.arange(12) % CLASSES


def one_of_two(rank: int, folder: str) -> None:
    """Half of the batch, the model in DDP and put into the loss as the trainer does it."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model, loss, inputs, labels = compatible_batch()
    loss.model = loss.usual.model = nn.parallel.DistributedDataParallel(model)
    half = slice(rank * 6, rank * 6 + 6)
    sum(loss([{"inputs": inputs[half]}], labels[half]).values()).backward()
    torch.save([model.layer.weight.grad, loss.usual.classifier.weight.grad], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(one_of_two, (str(tmp_path),), nprocs=2)
    model, loss, inputs, labels = compatible_batch()
    sum(loss([{"inputs": inputs}], labels).values()).backward()
    for rank in (0, 1):  # W is in no DDP module: only equal gradients keep it equal
        for found, wanted in zip(
            torch.load(tmp_path / f"{rank}.pt", weights_only=True),
            [model.layer.weight.grad, loss.usual.classifier.weight.grad],
            strict=True,
        ):
            torch.testing.assert_close(found, wanted)
