"""Who sees what: the images of the two models, the classes they know, and labels that are missing or wrong."""

import numpy as np
from jaxtyping import Float, Int64

from ..arrays import check_vectors, unit_rows
from ..config import Recipe
from ..data.images import Images
from ..data.sources import open_images
from ..data.splits import split_rows
from ..errors import ConfigError, DataError
from ..features.features import Features


def open_split(recipe: Recipe, split: str) -> Images:
    """The images of a split: `train` has the classes that are trained on, `val` those that are searched for.

    Both have all classes, unless the last `test_classes` are reserved for the search.

    Args:
        recipe: names the data and says how its classes are divided.
        split: `train` or `val`.

    Returns:
        The images, with labels from 0.

    Raises:
        ConfigError: the recipe names no data, or there are fewer classes than it divides.
        DataError: the data cannot be read.
    """
    if recipe.data is None:
        raise ConfigError("no data: the recipe names none, so pass --data (digits, a folder, Parquet files or a hub name)")
    images = open_images(recipe.data, split).first_classes(recipe.classes)
    known = len(images.classes) - (recipe.test_classes or 0)
    if known < 1:
        raise ConfigError(f"test_classes must be below {len(images.classes)}, the classes there are; got {recipe.test_classes}")
    if known < (recipe.old_classes or 1):
        raise ConfigError(f"old_classes must be at most {known}, the classes that are trained on; got {recipe.old_classes}")
    if split == "train":
        return images.first_classes(known)
    return images.take(np.flatnonzero(images.labels >= known)) if recipe.test_classes else images


def training_rows(
    recipe: Recipe, labels: Int64[np.ndarray, " n"], seed: int
) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " m"]]:
    """Rows of the training split for the old and for the new model.

    The old model gets `old_fraction` of each of the first `old_classes`. The new one gets `new_fraction` of each class, by
    default all rows that the old model does not have. Those rows come first: a share up to 1 − old_fraction contains none of
    the old model's rows, and only a share of 1 contains all of them.

    Args:
        recipe: with these shares.
        labels: (n,) classes of the training split.
        seed: of the split.

    Returns:
        (k,) and (m,) row numbers, both ascending.
    """
    old, rest = split_rows(labels, recipe.old_fraction, seed)
    new = rest if recipe.new_fraction is None else _share(labels, rest, recipe.new_fraction, seed)
    return old if recipe.old_classes is None else old[labels[old] < recipe.old_classes], new


def _share(labels: Int64[np.ndarray, " n"], rest: Int64[np.ndarray, " r"], fraction: float, seed: int) -> np.ndarray:
    """`fraction` of the rows of each class, at least one, drawn from `rest` until that is used up."""
    generator = np.random.default_rng([seed, 2])
    unseen, drawn = np.isin(np.arange(len(labels)), rest), []
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        rows = rows[np.argsort(~unseen[rows], kind="stable")]
        drawn.append(rows[: max(1, round(fraction * len(rows)))])
    return np.sort(np.concatenate(drawn))


def stored(old: Features, recipe: Recipe) -> Features:
    """The old model's features as its index stores them: at unit length, if the recipe says so.

    Args:
        old: features as the model gave them.
        recipe: its `unit_length` decides.

    Returns:
        The features.

    Raises:
        DataError: a zero vector, which has no direction.
    """
    if not recipe.unit_length:
        return old
    vectors = unit_rows(check_vectors(old.vectors, "old features", nonzero=True)).numpy()
    return Features(vectors, old.labels, old.ids, old.space)


def told_labels(old: Features, recipe: Recipe, seed: int) -> Features:
    """The old features of the new training images, with the labels that the new models get: their classes, or clusters.

    Args:
        old: features with the true classes.
        recipe: its `clusters` decides.
        seed: of the clusters.

    Returns:
        The features.

    Raises:
        DataError: there are fewer rows than clusters.
    """
    if recipe.clusters is None:
        return old
    return Features(old.vectors, cluster_labels(old.vectors, recipe.clusters, seed), old.ids, old.space)


def cluster_labels(vectors: Float[np.ndarray, "n d"], clusters: int, seed: int) -> Int64[np.ndarray, " n"]:
    """Labels for images that have none: k-means of their old features, in mini-batches.

    Args:
        vectors: (n, d) old features.
        clusters: how many to find, at most n.
        seed: of the first centres and of the batches.

    Returns:
        (n,) labels in [0, c), each of which occurs; c is `clusters`, or less where rows are identical.

    Raises:
        DataError: there are fewer rows than clusters.
    """
    from sklearn.cluster import MiniBatchKMeans

    if len(vectors) < clusters:
        raise DataError(f"{len(vectors)} old features cannot make {clusters} clusters; ask for fewer")
    kmeans = MiniBatchKMeans(clusters, random_state=seed, batch_size=max(4096, clusters), n_init=3)
    nearest = kmeans.fit_predict(np.asarray(vectors, dtype=np.float32))
    return np.unique(nearest, return_inverse=True)[1].astype(np.int64)  # identical rows leave clusters empty


def check_noise(share: float) -> None:
    """Check a share of wrong labels.

    Args:
        share: of all labels.

    Raises:
        ConfigError: it is not in [0, 1].
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"label_noise must be in [0, 1]; got {share}")


def noisy_labels(labels: Int64[np.ndarray, " n"], share: float, classes: int, seed: int) -> Int64[np.ndarray, " n"]:
    """Labels of which a share is replaced by other classes, uniformly.

    Args:
        labels: (n,) true classes in [0, classes).
        share: in [0, 1] of the labels; 0 changes nothing.
        classes: number of classes.
        seed: of the draws.

    Returns:
        (n,) labels.

    Raises:
        ConfigError: the share is not in [0, 1], or there is no other class.
    """
    check_noise(share)
    if share == 0:
        return labels.copy()
    if classes < 2:
        raise ConfigError(f"label_noise {share} needs a second class; the data has {classes}")
    generator = np.random.default_rng([seed, 1])
    wrong = generator.permutation(len(labels))[: round(share * len(labels))]
    noisy = labels.copy()
    noisy[wrong] = (labels[wrong] + generator.integers(1, classes, size=len(wrong))) % classes
    return noisy
