"""Qdrant beyond the contract: a server, who else writes in the middle of a write, a kill in the middle of one, and errors."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from compatlearn.errors import CompatlearnError, DataError, IncompatibleError
from compatlearn.indexes.open import open_index
from compatlearn.indexes.second import stamps_of
from compatlearn.indexes.stores.qdrant import QdrantIndex, QdrantSecond
from compatlearn.indexes.stores.qdrant_server import Qdrant, ids_of
from qdrant_service import serving

N, D, D_NEW = 60, 6, 4
SAID = "new@1|embedded"


def normal(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def put(client: QdrantClient, ids: Any, vectors: np.ndarray) -> None:
    pairs = zip(ids, vectors.tolist(), strict=True)
    client.upsert("my.items", [models.PointStruct(id=i, vector={"text": row}, payload={"n": i}) for i, row in pairs])


@pytest.fixture
def client() -> Iterator[QdrantClient]:
    made = QdrantClient(":memory:", force_disable_check_same_thread=True)
    made.create_collection("my.items", {"text": models.VectorParams(size=D, distance=models.Distance.EUCLID)})
    put(made, range(N), normal(N, D))
    yield made
    made.close()


@pytest.fixture
def second(client: QdrantClient) -> QdrantSecond:
    return QdrantIndex(Qdrant(client, "memory", local=True), "my.items", "text").add_second("v2", D_NEW)


def write(second: QdrantSecond, block: Any) -> int:
    return second.write(block, normal(len(block), D_NEW, 3), stamps_of(SAID, block.old))


def state(client: QdrantClient) -> dict[Any, Any]:
    points = client.scroll("my.items", limit=1000, with_vectors=True)[0]
    return {point.id: (point.vector, point.payload) for point in points}


def before(second: QdrantSecond, call: str, act: Any) -> None:
    """Do something once, right before that call of the client."""
    ask, done = second.server.ask, []

    def asked(name: str, *arguments: Any, **named: Any) -> Any:
        if name == call and not done:
            done.append(name)
            act()
        return ask(name, *arguments, **named)

    second.server.ask = asked  # type: ignore[method-assign]


@pytest.mark.parametrize("call", ["set_payload", "retrieve", "update_vectors", "batch_update_points", "delete_payload"])
def test_what_the_application_does_in_the_middle_of_a_write_stands(
    client: QdrantClient, second: QdrantSecond, call: str
) -> None:
    block = second.block(np.arange(N))

    def act() -> None:
        put(client, [7], np.ones((1, D), dtype=np.float32))
        client.delete("my.items", [8, 40])

    before(second, call, act)
    assert write(second, block) == N - 3
    assert second.counts() == {"": 1, SAID: N - 3}
    found = state(client)
    assert 8 not in found
    assert 40 not in found
    assert found[7][0] == {"text": [1.0] * D}
    assert not any(key.endswith("claim") for _, payload in found.values() for key in payload)
    assert second.block([7]).stamps.tolist() == [""]


@pytest.mark.parametrize("call", ["retrieve", "update_vectors", "batch_update_points", "delete_payload"])
def test_a_write_that_is_killed_leaves_nothing_that_counts_as_done(
    client: QdrantClient, second: QdrantSecond, call: str
) -> None:
    untouched = state(client)

    def die() -> None:
        raise KeyboardInterrupt

    assert write(second, second.block(np.arange(N))) == N
    again = second.block(np.arange(N))
    before(second, call, die)
    with pytest.raises(KeyboardInterrupt):
        second.write(again, normal(N, D_NEW, 4), stamps_of("new@1|translated", again.old))
    assert second.counts() == {"": N}
    assert not np.isin(second.block(np.arange(N)).stamps, stamps_of(SAID, again.old)).any()
    assert write(second, second.block(np.arange(N))) == N
    assert second.counts() == {SAID: N}
    second.drop()
    assert state(client) == untouched


def test_a_write_that_is_passed_by_leaves_the_stamp_that_shows_the_change(client: QdrantClient, second: QdrantSecond) -> None:
    write(second, second.block(np.arange(N)))
    block = second.block(np.arange(N))
    client.update_vectors("my.items", [models.PointVectors(id=3, vector={"text": [2.0] * D})])
    assert write(second, block) == N - 1
    again = second.block(np.arange(N))
    assert again.ids[again.stamps != stamps_of(SAID, again.old)].tolist() == [3]


def test_a_stamp_that_the_application_carries_along_counts_for_nothing(client: QdrantClient, second: QdrantSecond) -> None:
    write(second, second.block(np.arange(N)))
    payload = client.retrieve("my.items", [3])[0].payload
    assert payload is not None
    client.upsert("my.items", [models.PointStruct(id=3, vector={"text": [2.0] * D}, payload=payload)])
    assert second.counts() == {"": 1, SAID: N - 1}


def test_a_server_is_used_as_a_folder_is_and_waited_for(client: QdrantClient) -> None:
    vectors, untouched = normal(N, D), state(client)
    with serving(client) as (service, url):
        index = open_index(f"qdrant:{url}#my.items.text")
        np.testing.assert_array_equal(np.concatenate([block.vectors for block in index.scan(25)]), vectors)
        assert index.search(vectors[:5], k=1, exact=True).ids[:, 0].tolist() == [0, 1, 2, 3, 4]
        index.name_space("old@1")
        second = index.add_second("v2", D_NEW)
        for block in second.blocks(25):
            service.drops = 2
            assert write(second, block) == len(block)
        assert second.counts() == {SAID: N}
        assert open_index(f"qdrant:{url}#my.items.text").space == "old@1"
        before(second, "batch_update_points", lambda: client.delete("my.items", [5]))
        assert write(second, second.block(np.arange(20))) == 19
        second.drop()
        assert index.second("v2") is None
        del untouched[5]
        assert state(client) == untouched
        index.close()


def test_the_key_comes_from_the_environment_and_is_never_shown(client: QdrantClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(client, key="s3cret") as (_, url):
        with pytest.raises(DataError, match=r"does not allow it: .*; set QDRANT_API_KEY"):
            open_index(f"qdrant:{url}#my.items.text")
        monkeypatch.setenv("QDRANT_API_KEY", "s3cret")
        with pytest.warns(UserWarning, match="insecure connection"):
            index = open_index(f"qdrant:{url.replace('//', '//user:hidden@')}#my.items.text")
        assert len(index) == N
        assert not {"s3cret", "hidden"} & set(repr(index).replace("@", " ").replace(":", " ").split())
        index.close()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("items", "has no collection 'items'; it has my.items"),
        ("my.items", "has no unnamed vector; name one of: my.items.text"),
        ("my.items.txt", "has no vector 'txt'; name one of: my.items.text"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(client: QdrantClient, name: str, said: str) -> None:
    with serving(client) as (_, url), pytest.raises(DataError) as caught:
        open_index(f"qdrant:{url}#{name}")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_servers_and_folders_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no Qdrant folder"):
        open_index(f"qdrant:{tmp_path}/none#items")
    assert list(tmp_path.iterdir()) == []
    for place in ("http://user:hidden@127.0.0.1:9", "http://127.0.0.1:port"):
        with pytest.raises(CompatlearnError) as caught:
            open_index(f"qdrant:{place}#items")
        assert "hidden" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the client leaves its lock file open
def test_a_folder_that_another_client_holds(tmp_path: Path) -> None:
    other = QdrantClient(path=str(tmp_path / "q"))
    other.create_collection("items", models.VectorParams(size=D, distance=models.Distance.MANHATTAN))
    with pytest.raises(DataError, match=r"cannot open the Qdrant folder .* already accessed by another instance"):
        open_index(f"qdrant:{tmp_path}/q#items")
    other.close()
    with pytest.raises(IncompatibleError, match="vectors ranked by Manhattan"):
        open_index(f"qdrant:{tmp_path}/q#items")


def test_unnamed_vectors_are_read_but_get_no_second_in_a_folder(tmp_path: Path) -> None:
    """There, the application could write no unnamed vector any more; a server takes them."""
    made = QdrantClient(path=str(tmp_path / "q"))
    made.create_collection("items", models.VectorParams(size=D, distance=models.Distance.DOT))
    made.upsert("items", [models.PointStruct(id=1, vector=[1.0] * D)])
    made.close()
    index = open_index(f"qdrant:{tmp_path}/q#items")
    assert index.read([1]).vectors.tolist() == [[1.0] * D]
    assert index.search(np.ones((1, D)), k=1).scores.tolist() == [[D]]
    with pytest.raises(IncompatibleError, match="takes no unnamed ones"):
        index.add_second("v2", D_NEW)
    index.close()


def test_a_vector_of_somebody_else_is_refused(client: QdrantClient, second: QdrantSecond) -> None:
    dense = models.DenseVectorNameConfig(dense=models.DenseVectorConfig(size=D_NEW, distance=models.Distance.EUCLID))
    client.create_vector_name("my.items", "theirs", dense)
    with pytest.raises(IncompatibleError, match="was not made here"):
        second.first.add_second("theirs", D_NEW)


def test_ids_that_would_become_others_are_refused() -> None:
    with pytest.raises(DataError, match="numbers and UUIDs"):
        ids_of([1, "00000000-0000-0000-0000-000000000000"])
    with pytest.raises(DataError, match="beyond"):
        ids_of([1, 2**63])
