import random

import pytest

from mmseg_recall.datasets.convert import convert_dataset, split_names
from mmseg_recall.datasets.convert_synthia import CAMERAS, SIDES, find_pairs

from .raw.synthia import write_raw


def test_split_has_the_paper_s_sizes():
    split = split_names(f'{index:06d}.png' for index in range(787))
    views = len(SIDES) * len(CAMERAS)
    assert {name: views * len(members) for name, members in split.items()} == {
        'train': 4400,
        'val': 624,
        'test': 1272,
    }


def test_each_view_is_split_alike(tmp_path):
    write_raw(tmp_path, 10)
    splits = {}
    for pair in find_pairs(tmp_path):
        splits.setdefault(pair.raw_image.name, []).append(pair.split)
    assert {len(of_name) for of_name in splits.values()} == {len(SIDES) * len(CAMERAS)}
    names = {name: split for split, members in split_names(splits).items() for name in members}
    assert {name: {names[name]} for name in names} == {n: set(s) for n, s in splits.items()}


def test_split_is_python_s_shuffle_of_the_sorted_names():
    names = [f'{index:06d}.png' for index in range(787)]
    split = split_names(names)
    shuffled = list(names)
    random.seed(0)
    random.shuffle(shuffled)
    assert split['train'] + split['val'] + split['test'] == shuffled
    assert split_names(reversed(names)) == split
    # Pinned, so that neither a later Python nor a later edit moves frames between the splits.
    assert split['val'][:3] == ['000228.png', '000760.png', '000163.png']


def test_names_tell_the_view_and_images_are_linked(tmp_path):
    raw, out = tmp_path / 'raw', tmp_path / 'out'
    truth = write_raw(raw, 3)
    convert_dataset('synthia', raw, out)
    labels = {path.name for path in (out / 'annotations').rglob('*.png')}
    assert labels == {'_'.join(path.relative_to(raw / 'GT' / 'LABELS').parts) for path in truth}
    (image,) = out.rglob('images/*/Stereo_Left_Omni_F_straße.png')
    assert image.samefile(raw / 'RGB' / 'Stereo_Left' / 'Omni_F' / 'straße.png')


def test_a_missing_view_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='Omni_B'):
        convert_dataset('synthia', tmp_path, tmp_path / 'out')
