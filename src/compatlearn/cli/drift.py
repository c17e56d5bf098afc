"""`compatlearn drift`: do live queries still look like those of the plan?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ..errors import ConfigError, IncompatibleError
from .output import show, tell
from .texts import TextModel, open_named_texts

if TYPE_CHECKING:
    from ..features.features import Features


def drift(
    *,
    plan: Path,
    queries: str,
    new_model: str | None = None,
    text_column: str | None = None,
    text_model: Annotated[TextModel, Parameter(name="*")] = TextModel(),  # noqa: B008
    alarms: float = 0.01,
    seed: int = 0,
    json: bool = False,
    require_unchanged: bool = False,
) -> int:
    """Compare live queries with those that a plan was measured with: lengths, distances, directions, agreement.

    ```
    compatlearn drift --plan plan --queries last-week.npz --require-unchanged
    compatlearn drift --plan plan --queries last-week.jsonl --new-model all-MiniLM-L6-v2
    ```

    Args:
        plan: folder that `plan` wrote.
        queries: live queries: their vectors by the new model, or texts, with --new-model.
        new_model: what embeds texts, as for `plan`.
        text_column: column or key with the texts, where it has no usual name.
        text_model: how texts are embedded.
        alarms: rate of false alarms of all checks together.
        seed: of the random splits.
        json: everything as JSON on stdout.
        require_unchanged: exit with 3 if a change is seen.
    """
    from .. import runtime
    from ..evaluation.drift import drift as compare
    from ..evaluation.profile import load_profile
    from ..upgrade.files import FILES, PROFILE

    profile = load_profile(plan / PROFILE)
    asked = _asked(queries, new_model, text_column, text_model)
    if asked.space and profile.space and asked.space != profile.space:
        raise IncompatibleError(f"{queries} is of {asked.space!r}, the plan's queries are of {profile.space!r}")
    source = plan / FILES["query"]
    query_map: Any = runtime.load(source) if source.exists() else None
    if query_map is None:
        tell(f"{plan} holds no query map, so agreement is not compared")
    found = compare(profile, asked.vectors, query_map=query_map, alarms=alarms, seed=seed)
    show(found.to_dict() if json else str(found))
    return 3 if require_unchanged and found.changed else 0


def _asked(queries: str, model: str | None, column: str | None, text_model: TextModel) -> "Features":
    from ..features.features import Features

    if model is None:
        if not Path(queries).exists():
            raise ConfigError(f"there is no {queries}; give vectors by the new model, or texts and --new-model")
        return Features.load(queries)
    from ..encoders.embed import embed_texts

    return embed_texts(text_model.load(model), open_named_texts(queries, column, None, None))
