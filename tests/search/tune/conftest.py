"""Fixtures of the tests that run trials."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from search.tune.cluster import connected


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """A local Ray in this process."""
    with connected(None):
        yield
