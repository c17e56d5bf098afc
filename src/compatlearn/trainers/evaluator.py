"""The cross test as an evaluator of sentence-transformers: after every epoch, logged, in a CSV file and on the model card."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..extras import require
from .cross_test import CrossTest, Encode, to_metrics

if TYPE_CHECKING:
    from sentence_transformers.sentence_transformer.evaluation import SentenceEvaluator
else:
    SentenceEvaluator = require("sentence_transformers.sentence_transformer.evaluation").SentenceEvaluator


class CompatibilityEvaluator(SentenceEvaluator):
    """Give it to `SentenceTransformerTrainer(evaluator=…)`: new queries in the old gallery, as the model is trained.

    Queries are embedded by `encode_query`, items by `encode_document`. The primary metric is the cross test's: `cross_top1` by
    labels, `cross_ndcg10` by judgements, `cross_agreement` with neither; with a name, `NAME_cross_top1`. So
    `metric_for_best_model="eval_NAME_cross_top1"` keeps the checkpoint that serves the old index best.

    Args:
        test: the cross test; its inputs are texts, or whatever the model embeds.
        name: put before every metric and into the name of the file.
        batch_size: texts at a time.
        write_csv: append a line per evaluation to `Compatibility_evaluation_NAME_results.csv`.
        show_progress_bar: while embedding.
    """

    def __init__(
        self,
        test: CrossTest,
        *,
        name: str = "",
        batch_size: int = 32,
        write_csv: bool = True,
        show_progress_bar: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.test, self.name, self.write_csv = test, name, write_csv
        self.batch_size, self.show_progress_bar = batch_size, show_progress_bar
        by_labels = "top1" if test.old_gallery.has_labels else "agreement"
        primary = by_labels if test.relevance is None else "ndcg10" if test.relevance.judged is not None else "top1"
        self.primary_metric = f"{name}_cross_{primary}" if name else f"cross_{primary}"
        self.csv_file = "_".join(["Compatibility_evaluation", *([name] if name else []), "results.csv"])

    def __call__(self, model: Any, output_path: str | None = None, epoch: float = -1, steps: int = -1) -> dict[str, float]:
        """Measure the model as it is.

        Args:
            model: of sentence-transformers.
            output_path: folder of the CSV file; None writes none.
            epoch: of the training; −1 is none.
            steps: of the training; −1 is the end of the epoch.

        Returns:
            The figures of `to_metrics`, the name put before each.

        Raises:
            IncompatibleError: the model has fewer dimensions than the old gallery.
            DataError: it gives NaN or infinity.
        """
        result = self.test(self._encode(model.encode_query), self._encode(model.encode_document))
        metrics = to_metrics(result)
        if output_path is not None and self.write_csv:
            self._write(Path(output_path), {"epoch": epoch, "steps": steps, **metrics})
        named: dict[str, float] = self.prefix_name_to_metrics(metrics, self.name)
        self.store_metrics_in_model_card_data(model, named, epoch, steps)  # type: ignore[arg-type]  # epochs are fractions
        return named

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card says of this evaluation."""
        test = self.test
        return {
            "queries": len(test.queries),
            "gallery": len(test.old_gallery),
            "old_space": test.old_gallery.space,
            "metric": test.metric,
        }

    def _encode(self, embed: Any) -> Encode:
        def encode(inputs: Sequence[Any]) -> np.ndarray:
            vectors = embed(
                list(inputs), batch_size=self.batch_size, show_progress_bar=self.show_progress_bar, convert_to_numpy=True
            )
            return np.asarray(vectors)

        return encode

    def _write(self, folder: Path, line: dict[str, Any]) -> None:
        """Append, as the evaluators of sentence-transformers do; an infinite update gain leaves its cell empty."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.csv_file
        columns = list(dict.fromkeys([*line, *([] if self.test.independent is None else ["update_gain"])]))
        fresh = not path.exists()
        with path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, sorted(columns, key=_order), restval="", lineterminator="\n")
            if fresh:
                writer.writeheader()
            writer.writerow(line)


def _order(column: str) -> int:
    return ("epoch", "steps").index(column) if column in ("epoch", "steps") else 3 if column == "update_gain" else 2
