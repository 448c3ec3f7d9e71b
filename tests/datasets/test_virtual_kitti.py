import cv2
import numpy as np
import pytest
from mmseg.registry import DATASETS

from mmseg_recall.datasets.convert import convert_dataset, split_names
from mmseg_recall.datasets.convert_virtual_kitti import LAYOUTS, find_pairs, read_raw_label

from . import stubs
from .raw.virtual_kitti import write_raw

FRAMES = {'Scene01': 447, 'Scene02': 233, 'Scene06': 270, 'Scene18': 339, 'Scene20': 837}
"""Frames of each scene in the release, 2126 in all, for each of 20 views."""

# The sums of red, green and blue by which the authors' loader tells the classes apart, in its
# order of classes: a second source for the colours.
SUMS = [410, 545, 199, 330, 420, 260, 605, 510, 400, 385, 240, 280, 462, 278]


def load(root, split):
    data = DATASETS.build(stubs.dataset('VirtualKitti2Dataset', root, split))
    samples = [item['data_samples'] for item in data]
    return {s.img_path.rsplit('/')[-1]: s.gt_sem_seg.data[0].numpy() for s in samples}


def test_colours_agree_with_the_authors_loader():
    palette = np.array(DATASETS.get('VirtualKitti2Dataset').METAINFO['palette'])
    assert palette.sum(axis=1).tolist() == SUMS


def test_split_sizes_of_the_release():
    sizes = dict.fromkeys(('train', 'val', 'test'), 0)
    for frames in FRAMES.values():
        for split, names in split_names(f'rgb_{i:05d}.jpg' for i in range(frames)).items():
            sizes[split] += 20 * len(names)
    assert sizes == {'train': 29720, 'val': 4200, 'test': 8600}


def test_all_views_of_a_moment_are_in_one_split(tmp_path):
    write_raw(tmp_path, 10)
    moments = {}
    for pair in find_pairs(tmp_path):
        scene, frame = pair.name[:7], pair.name[-9:]
        moments.setdefault((scene, frame), set()).add(pair.split)
    assert len(moments) == 5 * 10
    assert all(len(splits) == 1 for splits in moments.values())
    splits = [splits.pop() for splits in moments.values()]
    assert [splits.count(name) for name in ('train', 'val', 'test')] == [35, 5, 10]


@pytest.mark.parametrize('archives', LAYOUTS.values(), ids=['together', 'apart'])
def test_release(tmp_path, archives):
    raw, out = tmp_path / 'raw', tmp_path / 'out'
    truth = write_raw(raw, 2, archives)
    convert_dataset('virtual-kitti', raw, out)
    loaded = {}
    for split in ('train', 'test'):  # of two frames none is for validation
        loaded.update(load(out, split))
    assert len(loaded) == len(truth)
    for path, ids in truth.items():
        scene, variation, _, _, camera, name = path.relative_to(raw / archives[1]).parts
        image = f'{scene}_{variation}_{camera}_{name}'.replace('classgt', 'rgb')
        np.testing.assert_array_equal(loaded[image.replace('.png', '.jpg')], ids)
    # The release's JPEG files themselves: as PNG they would take several times the space.
    (image,) = out.rglob('images/*/Scene20_rain_Camera_1_rgb_00001.jpg')
    rgb = raw / archives[0] / 'Scene20' / 'rain' / 'frames' / 'rgb' / 'Camera_1'
    assert image.samefile(rgb / 'rgb_00001.jpg')


def test_an_alpha_channel_is_not_read(tmp_path):
    truth = write_raw(tmp_path, 1)
    path, ids = next(iter(truth.items()))
    label = cv2.imread(str(path))
    alpha = np.arange(label.shape[1], dtype=np.uint8) + np.zeros_like(label[..., :1, 0])
    stubs.write(path, np.dstack([label, alpha]))
    np.testing.assert_array_equal(read_raw_label(path), ids)


def test_a_missing_view_is_named(tmp_path):
    write_raw(tmp_path, 1)
    (tmp_path / 'Scene18' / 'fog' / 'frames' / 'rgb' / 'Camera_1').rename(tmp_path / 'elsewhere')
    with pytest.raises(FileNotFoundError, match='Scene18/fog/frames/rgb/Camera_1'):
        find_pairs(tmp_path)


def test_a_folder_that_is_not_virtual_kitti(tmp_path):
    with pytest.raises(FileNotFoundError, match='No Virtual KITTI 2'):
        find_pairs(tmp_path)
