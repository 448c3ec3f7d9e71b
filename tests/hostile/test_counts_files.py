"""Files of class counts that are none: each is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmseg_recall.losses import ClassBalancedLoss, InverseFrequencyLoss
from mmseg_recall.losses.class_counts import load_class_counts
from tests.datasets import stubs

CONTENTS = {
    'empty': (b'', 'is not JSON'),
    'truncated': (b'{"pixels": [1, 2', 'is not JSON'),
    'a pickle': (b'\x80\x04K\x01.', 'is not JSON'),
    'a picture': (b'\x89PNG\r\n\x1a\n\x00\x00', 'is not JSON'),
    'UTF-16 without an end': ('{"pixels": [1]}'.encode('utf-16')[:-1], 'is not JSON'),
    'nested without end': (b'[' * 200_000, 'is not JSON'),
    'nested in the list': (b'{"pixels": [[1, 2], [3]]}', 'one a class'),
    'a list of lists': (b'[[1], [2]]', 'one a class'),
    'a text': (b'"12"', '"pixels"'),
    'null': (b'null', '"pixels"'),
    'shares': (b'[0.25, 0.75]', 'not shares'),
    'null counts': (b'{"pixels": [1, null]}', 'one a class'),
    'texts': (b'{"pixels": ["1", "2"]}', 'one a class'),
    'true': (b'{"pixels": [true, 2]}', 'one a class'),
    'NaN': (b'{"pixels": [1, NaN]}', 'class 1: nan'),
    'infinite': (b'{"pixels": [Infinity, 1]}', 'class 0: inf'),
    'beyond floats': (b'{"pixels": [1e999, 1]}', 'class 0: inf'),
    'beyond 64 bits': (b'{"pixels": [1, 9223372036854775808]}', r'class 1: 2\*\*63 or more'),
    '400 digits': (b'{"pixels": [1, ' + b'9' * 400 + b']}', r'class 1: 2\*\*63 or more'),
    '5000 digits': (b'{"pixels": [1, ' + b'9' * 5000 + b']}', 'is not JSON|or more'),
    'a large float': (b'{"pixels": [1, 1e300]}', r'class 1: 1e\+300'),
    'negative': (b'{"pixels": [1, -1]}', 'class 1: -1'),
    'no class': (b'{"pixels": []}', 'all zero'),
    'no pixel': (b'{"pixels": [0, 0]}', 'all zero'),
    'other names': (b'{"classes": ["a"], "pixels": [1, 2]}', 'names 1 classes but counts 2'),
}


@pytest.mark.parametrize(('content', 'message'), CONTENTS.values(), ids=CONTENTS)
def test_each_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / 'größen der klassen.json'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        load_class_counts(path)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize('spoil', [stubs.folder, stubs.symlink_loop])
def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path, spoil) -> None:
    path = tmp_path / 'counts.json'
    path.write_text('{"pixels": [1, 2]}')
    spoil(path)
    with pytest.raises(ValueError, match='cannot be read') as error:
        load_class_counts(path)
    assert str(path) in str(error.value)


def test_the_largest_counts_give_finite_weights() -> None:
    for cls in (InverseFrequencyLoss, ClassBalancedLoss):
        weight = cls(class_counts=[2**63 - 1025, 1, 0]).weight
        assert weight.float().isfinite().all()
        assert weight[1] > weight[0] > 0 == weight[2]
