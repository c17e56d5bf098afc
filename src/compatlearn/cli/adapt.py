"""`compatlearn adapt`."""

import sys
from pathlib import Path


def adapt(
    *,
    old_features: Path,
    new_features: Path,
    out: Path,
    method: str = "auto",
    unseen_classes: bool = False,
    seed: int = 0,
) -> int:
    """A map from a new model's features to an old one's, both models frozen, tested on rows kept out of the fit.

    Args:
        old_features: the old model's features.
        new_features: the new model's features of the same items, matched by id.
        out: the .safetensors file to write.
        method: auto tries several and keeps the best; or procrustes, ridge, low-rank, residual-mlp, lambda-orthogonal,
            instance-head, and with labels rbt, head, neighbour-head, mixed-head.
        unseen_classes: for auto: the gallery's classes are not those of these features.
        seed: of the rows kept out and of training.
    """
    from ..adapters.adapter import save_adapter
    from ..adapters.choice import choose_adapter, fit_features
    from ..features.features import Features

    old, new = (Features.load(path, verify=True) for path in (old_features, new_features))
    if method == "auto":
        choice = choose_adapter(new, old, unseen_classes=unseen_classes, seed=seed)
        adapter, trials = choice.adapter, choice.trials
        for name, said in {"data": choice.facts, **trials}.items():
            print(f"{name}: {said}", file=sys.stderr)
        if not choice.worth_it:
            print("no map beats the old queries here: go on asking with the old model", file=sys.stderr)
    else:
        tried = fit_features(method, new, old, seed=seed)
        adapter, trials = tried.adapter, {method: tried}
    save_adapter(adapter, out)
    print(f"{out}: {adapter.method}, {adapter.d_new} to {adapter.d_old} dimensions; {trials[adapter.method]}")
    return 0
