from collections.abc import Iterator

import pytest

from .ranks import Ranks


@pytest.fixture(scope='package')
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    """Processes for all tests of this folder."""
    pool = Ranks(tmp_path_factory.mktemp('ranks'))
    yield pool
    pool.close()
