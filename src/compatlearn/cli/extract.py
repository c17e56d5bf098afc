"""`compatlearn extract`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from ..errors import ConfigError
from .engine import Engine, connected
from .out import check_out_folder
from .pictures import open_named_images
from .texts import TextModel, open_named_texts

if TYPE_CHECKING:
    from ..data.texts import Texts
    from ..encoders.text_encoder import TextEncoder

BATCH_SIZE = 256  # images


def extract(
    *,
    data: str,
    model: str,
    out: Path,
    weights: Path | None = None,
    text_column: str | None = None,
    id_column: str | None = None,
    label_column: str | None = None,
    batch_size: int | None = None,
    shard_rows: int = 16384,
    dtype: Literal["float32", "float16"] = "float32",
    tolerance: float = 0.001,
    device: str | None = None,
    engine: Engine = "local",
    address: str | None = None,
    text_model: Annotated[TextModel, Parameter(name="*")] = TextModel(),  # noqa: B008
) -> int:
    """Features of labelled images or of texts on disk; an interrupted run resumes where it was.

    ```
    compatlearn extract --data images:train --model vendor:embed --out features/old-train
    compatlearn extract --data gallery.parquet --model runs/new --id-column sku --out features/new-gallery
    compatlearn extract --data questions.jsonl --model all-MiniLM-L6-v2 --out features/questions
    compatlearn extract --data beir:corpus --model openai:text-embedding-3-small --price 0.02 --out features/corpus
    ```

    Args:
        data: digits, Parquet files, an image folder, ImageNet, Places365 or a hub name; texts in .jsonl, .csv, .tsv or
            Parquet files, or a folder of them, such as BEIR's. `DATA:val` chooses a split, `DATA:corpus` a file of a folder.
        model: of images: a run of `compatlearn train`, a timm or torchvision name, or `module:function` (a list of RGB
            pictures in, vectors out). Of texts: a name or folder of sentence-transformers, `openai:MODEL` for a service,
            or `module:function` (a list of texts in).
        out: folder of the features.
        weights: .safetensors or .pt state dict for a timm or torchvision name; without it a hub's.
        text_column: column or key with the texts, where it has no usual name; says that they are texts.
        id_column: column with the ids, where it has no usual name; `row`: the row's number is the id.
        label_column: column with the classes of texts, where it has no usual name; `none`: they have no classes.
        batch_size: images or texts given to the model at a time; by default 256 images, 512 texts, 128 texts in a request.
        shard_rows: images between two points from which an interrupted run can resume; of texts, no batch is lost.
        dtype: of the vectors on disk.
        tolerance: largest share of unreadable images that is skipped and recorded.
        device: torch's name of it; by default a GPU if there is one.
        engine: where images are embedded: here, or on a Ray cluster.
        address: host:port of the cluster, or auto; without one it is started here.
        text_model: how texts are embedded.
    """
    check_out_folder(
        out,
        {"--data": None if data.partition(":")[0] == "digits" else data, "--model": model, "--weights": weights},
        "features",
    )
    from ..data.texts import holds_texts

    if holds_texts(data, text_column=text_column):
        _refuse_for_texts(model, weights, engine)
        texts = open_named_texts(data, text_column, id_column, label_column)
        return _extract_texts(text_model.load(model, device=device, batch_size=batch_size), texts, out, shard_rows, dtype)
    text_model.refuse_for_pictures(data, model)
    from ..encoders.encoder import load_encoder
    from ..encoders.extract import extract

    options: dict[str, Any] = {"shard_rows": shard_rows, "dtype": dtype, "tolerance": tolerance}
    options["batch_size"] = BATCH_SIZE if batch_size is None else batch_size
    with connected(engine, address) as cluster:
        images = open_named_images(data, id_column)
        encoder = load_encoder(model, weights=weights, device=device)
        if cluster:
            features = cluster.extract((data, model, weights, device, id_column), encoder, images, out, **options)
        else:
            features = extract(encoder, images, out, **options)
    skipped = len(images) - len(features)
    print(f"{out}: {len(features)} features of {features.dimension} dimensions, {skipped} unreadable images skipped")
    return 0


def _refuse_for_texts(model: str, weights: Path | None, engine: Engine) -> None:
    if weights is not None:
        raise ConfigError(f"--weights is for models of images; {model} embeds texts with its own, so leave it out")
    if engine != "local":
        raise ConfigError(f"--engine {engine} embeds images; texts are embedded here, so leave it out")


def _extract_texts(encoder: "TextEncoder", texts: "Texts", out: Path, shard_rows: int, dtype: str) -> int:
    from ..encoders.embed import extract_texts

    features = extract_texts(encoder, texts, out, shard_rows=shard_rows, dtype=dtype)
    print(f"{out}: {len(features)} features of {features.dimension} dimensions")
    return 0
