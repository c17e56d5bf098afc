"""Shapes and types in the signatures are enforced while the tests run."""

import multiprocessing.forkserver
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout

import pytest
from jaxtyping import install_import_hook

install_import_hook("compatlearn", "beartype.beartype")


@pytest.fixture(scope="module", autouse=True)
def forkserver() -> Iterator[None]:
    """Processes of a file are forked from a server that has loaded what this file asks for, not an earlier one."""
    yield
    multiprocessing.forkserver._forkserver._stop()


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """Of a Ray cluster of two nodes with a core each, to which this process stays connected: its workers stay warm."""
    from ray.cluster_utils import Cluster

    from compatlearn.cluster import workers

    node = {"num_cpus": 1, "object_store_memory": 100 << 20}
    nodes = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    nodes.add_node(**node)
    out = sys.stdout  # which a command gives to Ray, but not for as long as the tests last
    with workers.connected(nodes.address), redirect_stdout(out):
        yield nodes.address
    nodes.shutdown()
