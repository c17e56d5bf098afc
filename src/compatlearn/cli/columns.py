"""The flags that say how the columns of anyone's file of features are called, and the reading of the files by them."""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CompatlearnError, FormatError

if TYPE_CHECKING:
    from ..features.features import Features

FLAGS = ("vector_column", "id_column", "label_column")


@dataclass(frozen=True)
class Columns:
    """Names of columns (.parquet) or keys (.npz, .safetensors, .pt) in files that do not use the usual ones.

    A command takes them all with `columns: Annotated[Columns, Parameter(name="*")] = Columns()`.

    Attributes:
        vector_column: column with the vectors, where it is not called vectors or vector.
        id_column: column with the ids, where it is not called ids or id; `row`: the row's number is the id.
        label_column: column with the classes, where it is not called labels or label.
    """

    vector_column: str | None = None
    id_column: str | None = None
    label_column: str | None = None

    def load(self, files: Mapping[str, Path], spaces: Mapping[str, str] | None = None) -> "dict[str, Features]":
        """Read and verify files of features; where classes have names, all of them get one numbering.

        A name must be in at least one of the files; one that lacks it is read by the usual names. Rows that are paired
        by number because no file has ids are said in one line on stderr.

        Args:
            files: what the caller calls them → path.
            spaces: the same names → what made the vectors, for files that do not say.

        Raises:
            CompatlearnError: as `Features.load` and `same_classes` do, in the words of the command line.
        """
        from ..features.classes import same_classes
        from ..features.features import Features
        from ..features.ids import are_rows

        try:
            names = self._names(files)
            loaded = [
                Features.load(path, verify=True, space=(spaces or {}).get(name, ""), **names[name])
                for name, path in files.items()
            ]
            loaded = list(same_classes(*loaded))
        except CompatlearnError as error:
            raise type(error)(as_flags(str(error))) from error
        if len({path.resolve() for path in files.values()}) > 1 and all(are_rows(one.ids_from) for one in loaded):
            places = " and ".join(dict.fromkeys(map(str, files.values())))
            print(f"{places}: no ids, so rows are paired by their numbers", file=sys.stderr)
        return dict(zip(files, loaded, strict=True))

    def _names(self, files: Mapping[str, Path]) -> dict[str, dict[str, str | None]]:
        """For each file the names that it has."""
        from ..features.formats import column_names

        given = {flag: getattr(self, flag) for flag in FLAGS if getattr(self, flag) is not None}
        present = {name: column_names(path) if given else () for name, path in files.items()}
        for flag, column in given.items():
            if column != "row" and not any(column in columns for columns in present.values()):
                have = "; ".join(f"{path}: {', '.join(present[name]) or 'none'}" for name, path in files.items())
                raise FormatError(f"there is no column {column!r} for {flag} ({have}); name one of these")
        return {
            name: {flag: column for flag, column in given.items() if column in (*columns, "row")}
            for name, columns in present.items()
        }


def as_flags(message: str, keywords: Sequence[str] = FLAGS) -> str:
    """A message of the library with its keywords as flags of the command line.

    Args:
        message: one line.
        keywords: those that are flags.

    Returns:
        The line with `--id-column` for `id_column`.
    """
    for keyword in keywords:
        flag = f"--{keyword.replace('_', '-')}"
        message = re.sub(rf"(?<![\w/.'\"-]){keyword}=", f"{flag} ", message)
        message = re.sub(rf"(?<![\w/.'\"-]){keyword}(?![\w/.'\"-])", flag, message)
    return message
