"""Shapes and types in the signatures are enforced while the tests run."""

from collections.abc import Iterator

import pytest
from jaxtyping import install_import_hook

install_import_hook("compatlearn", "beartype.beartype")


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """Of a Ray cluster of two nodes with a core each, to which this process stays connected: its workers stay warm."""
    from ray.cluster_utils import Cluster

    from compatlearn.cluster import workers

    node = {"num_cpus": 1, "object_store_memory": 100 << 20}
    nodes = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    nodes.add_node(**node)
    with workers.connected(nodes.address):
        yield nodes.address
    nodes.shutdown()
