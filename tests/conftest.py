"""Shapes and types in the signatures are enforced while the tests run."""

from jaxtyping import install_import_hook

install_import_hook("compatlearn", "beartype.beartype")
