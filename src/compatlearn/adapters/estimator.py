"""What scikit-learn's tools ask of an estimator beside `fit` and `transform`."""

from typing import Any

from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin


class Conventional(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A transformer from vectors to vectors: names of its columns, data frames with `set_output`, and tags."""

    @property
    def _widths(self) -> tuple[int, int]:
        """Dimensions that go in, and that come out; the estimator knows."""
        raise NotImplementedError

    @property
    def _n_features_out(self) -> int:
        """Columns of what comes out; scikit-learn makes their names of it."""
        return self._widths[1]

    def __sklearn_tags__(self) -> Any:
        """What may be expected: a target of several columns is needed, and float32 comes out."""
        tags = super().__sklearn_tags__()
        tags.target_tags.required = tags.target_tags.multi_output = True
        tags.target_tags.single_output = False
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags
