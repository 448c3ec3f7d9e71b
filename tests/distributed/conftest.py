from collections.abc import Iterator

import pytest

from .ranks import Ranks


@pytest.fixture(scope='package')
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    """Four processes for all tests of this folder."""
    pool = Ranks(4, tmp_path_factory.mktemp('ranks'))
    yield pool
    pool.close()
