"""The flags about gates and their reports."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import CompatlearnError, ConfigError, DataError
from .columns import as_flags
from .out import check_report
from .output import tell

if TYPE_CHECKING:
    from ..evaluation.gates import Checks
    from ..evaluation.result import Compatibility
    from ..features.features import Features


@dataclass(frozen=True)
class Gates:
    """Limits that figures must meet, in which groups of queries, and where it is reported.

    Attributes:
        max_negative_flips: exit with 3 if more queries than this share turn wrong, such as 1% or 0.01.
        min_ndcg: exit with 3 if nDCG@10 of the cross test is below this share; needs --qrels or --clicks.
        min_top1: exit with 3 if top-1 accuracy of the cross test is below this share.
        min_update_gain: exit with 3 if the update gain is below this, such as 0.5 or 50%.
        group: a table of query_id and group (CSV, TSV, JSON lines, Parquet): every gate is checked in each group too.
        by: class: the same with the classes of the queries as groups.
        min_group_queries: groups of fewer queries are reported and not gated.
        strict: a gate is met only if the whole interval is on the right side of its limit.
        junit: write gates and groups as test cases to this file, as JUnit XML.
        markdown: write verdict and gates to this file, as a summary for a pull request.
    """

    max_negative_flips: str | None = None
    min_ndcg: str | None = None
    min_top1: str | None = None
    min_update_gain: str | None = None
    group: Path | None = None
    by: Literal["class"] | None = None
    min_group_queries: int = 30
    strict: bool = False
    junit: Path | None = None
    markdown: Path | None = None

    def limits(self, require_compatible: bool) -> dict[str, float]:
        """Figure → limit, of the gates that are asked.

        Args:
            require_compatible: whether the verdict is a gate too.

        Raises:
            ConfigError: a limit that is no share.
        """
        limits = {"compatible": 0.0} if require_compatible else {}
        for figure, flag, text in (
            ("negative_flips", "--max-negative-flips", self.max_negative_flips),
            ("ndcg10", "--min-ndcg", self.min_ndcg),
            ("top1", "--min-top1", self.min_top1),
        ):
            if text is not None:
                limits[figure] = _share(flag, text)
        if limits.get("negative_flips") == 1:
            given = self.max_negative_flips
            raise ConfigError(
                f"--max-negative-flips {given} would let every query turn wrong; for one percent write 1% or 0.01"
            )
        if self.min_update_gain is not None:
            limits["update_gain"] = _number("--min-update-gain", self.min_update_gain)
        return limits

    def check(self, limits: Mapping[str, float], given: Mapping[str, Path | None], cluster: str, backfill: bool) -> None:
        """Refuse what cannot work, before any work.

        Args:
            limits: as `limits` gives them.
            given: what the command reads, by its flag.
            cluster: what the intervals draw.
            backfill: whether anything is given that a full backfill could be measured by.

        Raises:
            ConfigError: flags that do not fit, or a report that would destroy something.
        """
        grouped = "--group" if self.group is not None else "--by" if self.by else None
        needs = next(
            (flag for flag, on in (("--junit", self.junit), (grouped, grouped), ("--strict", self.strict)) if on), None
        )
        if needs and not limits:
            raise ConfigError(f"{needs} is about gates, and none is given; add one, such as --max-negative-flips 1%")
        if self.group is not None and self.by:
            raise ConfigError("--group and --by both say what the groups are; give one of them")
        if grouped and cluster == "class":
            raise ConfigError(f"--cluster class draws whole classes, and {grouped} draws queries in each group; leave one out")
        if self.min_group_queries < 1:
            raise ConfigError(f"--min-group-queries is 1 or more; got {self.min_group_queries}")
        if "ndcg10" in limits and given["--qrels"] is None and given["--clicks"] is None:
            raise ConfigError("--min-ndcg needs judgements; give --qrels or --clicks, or gate classes by --min-top1")
        if "update_gain" in limits and not backfill:
            raise ConfigError(
                "--min-update-gain needs what a full backfill scores; give --independent, or --adapter and --new-gallery"
            )
        inputs = {**given, "--group": self.group}
        if self.junit is not None and self.markdown is not None and self.junit.resolve() == self.markdown.resolve():
            raise ConfigError(f"--junit {self.junit} and --markdown {self.markdown} are one file; name two")
        if self.junit is not None:
            check_report("--junit", self.junit, inputs | {"--markdown": self.markdown})
        if self.markdown is not None:
            check_report("--markdown", self.markdown, inputs | {"--junit": self.junit})

    def groups(self, queries: "Features", path: Path) -> Any:
        """(q,) the group of each query, or None.

        Args:
            queries: the old queries.
            path: their file, for messages.

        Raises:
            CompatlearnError: a table that does not fit them, or no classes.
        """
        if self.group is not None:
            from ..evaluation.groups import groups_at, read_groups

            found, unknown = groups_at(read_groups(self.group), queries.ids, str(self.group), str(path))
            if unknown:
                tell(f"{unknown} queries of {self.group} are not in {path}; they are left out")
            return found
        if self.by is None:
            return None
        if queries.labels is None:
            raise DataError(f"--by class needs classes, and {path} has no labels; give labels, or --group")
        names = queries.classes
        return queries.labels if names is None else [names[label] for label in queries.labels]

    def checked(self, result: "Compatibility", limits: Mapping[str, float], groups: Any) -> "Checks | None":
        """All gates; None where there is none."""
        from ..evaluation.gates import Gate, check_gates

        gates = [Gate(figure, limit) for figure, limit in limits.items()]
        if not gates:
            return None
        try:
            return check_gates(result, gates, groups, strict=self.strict, fewest=self.min_group_queries)
        except CompatlearnError as error:
            raise type(error)(as_flags(str(error), ("independent", "new_gallery"))) from error

    def write(self, result: "Compatibility", checks: "Checks | None") -> None:
        """The reports that are asked for."""
        if self.junit is not None and checks is not None:
            from ..report.junit import write_junit

            write_junit(self.junit, checks)
        if self.markdown is not None:
            from ..report.markdown import write_markdown

            write_markdown(self.markdown, result, checks)


def _share(flag: str, text: str) -> float:
    value = _number(flag, text)
    if not 0 <= value <= 1:
        meant = f"; write {text}% or {value / 100:g}" if 1 < value <= 100 and "%" not in text else ""
        raise ConfigError(f"{flag} {text} is no share from 0 to 1" + (meant or "; write 1% or 0.01"))
    return value


def _number(flag: str, text: str) -> float:
    """In decimals, so that 0.7% is the 0.007 that seven of a thousand are."""
    try:
        value = Decimal(text.strip().removesuffix("%").rstrip())
    except InvalidOperation:
        value = Decimal("nan")
    if not value.is_finite():
        raise ConfigError(f"{flag} {text} is no share; write one such as 45% or 0.45")
    return float(value / 100 if text.strip().endswith("%") else value)
