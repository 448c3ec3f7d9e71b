import random

import pytest

from mmseg_recall.datasets.convert import convert_dataset, split_names
from mmseg_recall.datasets.convert_synthia import CAMERAS, SIDES, find_pairs

from .raw.synthia import write_raw


def test_split_has_the_paper_s_sizes(tmp_path):
    for side in SIDES:
        for camera in CAMERAS:
            folder = tmp_path / 'RGB' / side / camera
            folder.mkdir(parents=True)
            for index in range(787):
                (folder / f'{index:06d}.png').touch()
    splits = [pair.split for pair in find_pairs(tmp_path)]
    assert {name: splits.count(name) for name in ('train', 'val', 'test')} == {
        'train': 4400,
        'val': 624,
        'test': 1272,
    }


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
