"""Files of judgements, as BEIR and TREC write them."""

from pathlib import Path

from ..errors import DataError, FormatError

COLUMNS = {3: (0, 1, 2), 4: (0, 2, 3)}  # places of query, item and grade: BEIR's three columns, TREC's four


def read_qrels(path: Path) -> tuple[list[str], list[str], list[float]]:
    """Query, item and grade of each judgement in a file, each pair once.

    Args:
        path: BEIR's TSV (a header, then query, item, grade) or TREC's four columns (query, iteration, item, grade).

    Returns:
        Three lists of one length: query ids, item ids, grades.

    Raises:
        DataError: there is no such file, or it holds no judgement.
        FormatError: a line that is no judgement, or that contradicts another one.
    """
    if not path.is_file():
        raise DataError(f"there are no judgements {path}; check the path")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not text in UTF-8 ({error.reason} at byte {error.start}); write it as UTF-8") from error
    seen: dict[tuple[str, str], tuple[float, int]] = {}
    first = True
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        parts = line.split("\t") if line.count("\t") in (2, 3) else line.split()
        grade = _number(parts[-1])
        if first and len(parts) in COLUMNS and grade is None:  # the header
            first = False
            continue
        first = False
        if len(parts) not in COLUMNS or grade is None:
            raise FormatError(
                f"line {number} of {path} is no judgement ({line[:60]!r}); write query, item and grade separated by tabs, "
                "or TREC's query, iteration, item and grade"
            )
        query, item = (parts[place].strip() for place in COLUMNS[len(parts)][:2])
        before, where = seen.setdefault((query, item), (grade, number))
        if before != grade:
            raise FormatError(
                f"lines {where} and {number} of {path} give item {item!r} of query {query!r} the grades {before:g} and "
                f"{grade:g}; keep one of them"
            )
    if not seen:
        raise DataError(f"{path} holds no judgement; write query, item and grade, one judgement a line")
    queries, items = zip(*seen, strict=True)
    return list(queries), list(items), [grade for grade, _ in seen.values()]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
