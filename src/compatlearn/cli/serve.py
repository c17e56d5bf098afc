"""`compatlearn serve`: the map in front of a service, behind OpenAI's embeddings API."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ConfigError
from .live import plan_of
from .output import tell

if TYPE_CHECKING:
    from ..serving.app import Limits
    from ..serving.upstream import Upstream

SERVICE = "openai:"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    *,
    new_model: str,
    plan: Path | None = None,
    adapter: Path | None = None,
    old_model: str | None = None,
    rung: Literal["mapped", "fused"] | None = None,
    new_base_url: str | None = None,
    old_base_url: str | None = None,
    new_dimensions: int | None = None,
    old_dimensions: int | None = None,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    query_name: str = "query",
    document_name: str = "document",
    host: str = "127.0.0.1",
    port: int = 8000,
    key_variable: str | None = None,
    device: str | None = None,
    timeout: float = 30.0,
    most_bytes: int = 8 << 20,
    most_texts: int = 2048,
    most_open: int = 1024,
) -> int:
    """A proxy with OpenAI's embeddings API: queries by the new model come out in the old space, ready to ask the old index.

    Clients name the model `query` for queries, which are mapped, and `document` for what goes into the index, which the old
    model embeds and nobody maps.

    ```
    compatlearn serve --plan plan --new-model all-MiniLM-L6-v2
    compatlearn serve --plan plan --new-model openai:text-embedding-3-large --old-model openai:text-embedding-ada-002
    ```

    Args:
        new_model: what embeds queries: a name or folder of sentence-transformers, openai:MODEL, or module:function.
        plan: folder that `plan` wrote: its map, its weight, and its pairs, to count queries that lie far from them.
        adapter: in place of a plan: the file of a query map.
        old_model: what embeds documents and, for the rung fused, queries too; without it documents are refused.
        rung: mapped or fused; by default fused if the plan recommends it and there is an old model, else mapped.
        new_base_url: address of the new model's service, other than OpenAI's.
        old_base_url: of the old model's.
        new_dimensions: how many the new model's vectors are shortened to.
        old_dimensions: and the old model's.
        query_prompt: what is put before queries, by its name in a model of sentence-transformers.
        document_prompt: and before documents.
        query_name: model name by which clients ask for queries.
        document_name: and for documents.
        host: address to listen at; others than this machine's own are reached by everybody who can reach this machine.
        port: to listen at; 0 takes a free one.
        key_variable: name of the environment variable with the key that clients must send.
        device: torch's name for it, for models in this process.
        timeout: seconds until an answer must be there.
        most_bytes: of a request.
        most_texts: of a request.
        most_open: requests that are answered at a time; further ones are asked to come again.
    """
    from ..serving.app import Limits, create_app
    from ..serving.run import log_to_stderr, run

    key = _key(key_variable)
    limits = Limits(most_bytes, most_texts, most_open, timeout)
    _check(limits, query_name, document_name)
    source, facts = _map_of(plan, adapter)
    recommended = facts.get("recommended") if old_model else None
    rung = rung or ("fused" if recommended == "fused" else "mapped")
    if rung == "fused" and old_model is None:
        raise ConfigError("the rung fused asks with both models; give --old-model")
    services = {"timeout": timeout, "forward": not key}
    new = _upstream(new_model, new_base_url, new_dimensions, query_prompt, device, services)
    old = None
    if old_model is not None and rung == "fused":
        old = _upstream(old_model, old_base_url, old_dimensions, query_prompt, device, services)
    queries = _queries(source, facts, plan, new, old)
    names = {query_name: queries}
    if old_model is not None:
        from ..serving.road import Documents

        documents = old
        if documents is None or document_prompt != query_prompt:
            documents = _upstream(old_model, old_base_url, old_dimensions, document_prompt, device, services)
        names[document_name] = Documents(documents, queries.dimension, queries.space)
    app = create_app(names, limits=limits, key=key)
    if host not in LOOPBACK and not key:
        tell(f"{host} is not this machine alone, and no key is asked for: whoever can reach it can use it (--key-variable)")
    log_to_stderr()
    run(app, host, port, lambda address: tell(f"{rung}: {', '.join(names)} at {address}"))
    return 0


def _check(limits: "Limits", query: str, document: str) -> None:
    if min(limits.body, limits.texts, limits.open) < 1 or not limits.seconds > 0:
        raise ConfigError("--most-bytes, --most-texts, --most-open and --timeout must be above 0")
    if query == document:
        raise ConfigError(f"--query-name and --document-name are both {query!r}; queries are mapped and documents are not")


def _key(variable: str | None) -> str:
    if variable is None:
        return ""
    key = os.environ.get(variable, "")
    if not key:
        raise ConfigError(f"--key-variable {variable}: the environment has no such variable, or an empty one")
    return key


def _map_of(plan: Path | None, adapter: Path | None) -> tuple[Path, dict[str, Any]]:
    """The file of the map, and what the plan says."""
    from ..upgrade.files import FILES

    if (plan is None) == (adapter is None):
        raise ConfigError("give --plan, or --adapter with the file of a query map; one of them")
    if plan is None:
        assert adapter is not None
        return adapter, {}
    return plan / FILES["query"], plan_of(plan)


def _queries(source: Path, facts: dict[str, Any], plan: Path | None, new: "Upstream", old: "Upstream | None") -> Any:
    from .. import runtime
    from ..evaluation.profile import load_profile
    from ..serving.road import Queries
    from ..upgrade.files import PROFILE

    try:
        query_map = runtime.load(source)
    except runtime.MapError as error:
        raise ConfigError(str(error)) from error
    if query_map.direction != "query":
        raise ConfigError(f"{source} maps old vectors into the new space; queries need the map of direction 'query'")
    weight = float(facts["methods"]["fuse"]) if facts else 1.5
    profile = plan / PROFILE if plan is not None else None
    known = load_profile(profile) if profile is not None and profile.exists() else None
    return Queries(new, query_map, old, weight, known)


def _upstream(
    model: str, base_url: str | None, dimensions: int | None, prompt: str | None, device: str | None, services: dict[str, Any]
) -> "Upstream":
    from ..serving.upstream import Model, Service

    if model.startswith(SERVICE):
        if prompt is not None:
            raise ConfigError(f"a prompt is for models of sentence-transformers, not for {model}; leave it out")
        return Service(model.removeprefix(SERVICE), base_url=base_url, dimensions=dimensions, **services)
    if base_url is not None:
        raise ConfigError(f"a base URL is for a service ({SERVICE}MODEL), not for {model}; leave it out")
    from ..encoders.text_models import load_text_encoder

    return Model(load_text_encoder(model, device=device, prompt_name=prompt, dimensions=dimensions))
