import numpy as np
import pytest
from mmseg.registry import DATASETS

from mmseg_recall.datasets.convert_camvid import convert_camvid

from . import stubs


def segnet_tree(root, suffix='.png'):
    rng = np.random.default_rng(0)
    truth = {}
    for split in ('train', 'val', 'test'):
        for name in ('0001TP_1', 'a b', 'Jülich'):
            truth[split, f'{name}.png'] = label = stubs.ids(rng, 12)
            stubs.write(root / split / f'{name}{suffix}', stubs.picture(rng))
            stubs.write(root / f'{split}annot' / f'{name}.png', label)
    return truth


def load(root, split):
    data = DATASETS.build(stubs.dataset('CamVidDataset', root, split))
    return {
        item['data_samples'].img_path.rsplit('/')[-1]: item['data_samples']
        .gt_sem_seg.data[0]
        .numpy()
        for item in data
    }


@pytest.mark.parametrize('inside', ['', 'CamVid'])
@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
def test_segnet_release(tmp_path, inside, suffix):
    truth = segnet_tree(tmp_path / 'raw' / inside, suffix)
    convert_camvid(tmp_path / 'raw', tmp_path / 'out')
    for split in ('train', 'val', 'test'):
        labels = load(tmp_path / 'out', split)
        assert labels.keys() == {name for other, name in truth if other == split}
        for name, label in labels.items():
            want = np.where(truth[split, name] == 11, 255, truth[split, name])
            np.testing.assert_array_equal(label, want)


def test_mmseg_layout_without_a_test_split(tmp_path):
    truth = stubs.tree(tmp_path / 'raw', {'train': 3, 'val': 2}, count=11)
    truth['val']['val0.png'][2:5] = 255
    stubs.write(tmp_path / 'raw' / 'annotations' / 'val' / 'val0.png', truth['val']['val0.png'])
    convert_camvid(tmp_path / 'raw', tmp_path / 'out')
    for split in ('train', 'val'):
        labels = load(tmp_path / 'out', split)
        assert labels.keys() == truth[split].keys()
        for name, label in labels.items():
            np.testing.assert_array_equal(label, truth[split][name])
    assert not (tmp_path / 'out' / 'images' / 'test').exists()


@pytest.mark.parametrize(
    ('pixels', 'words'),
    [
        (np.full((16, 24), 12, np.uint8), r'unknown class ids \[12\]'),
        (np.zeros((16, 24, 3), np.uint8), 'single-channel'),
        (np.zeros((16, 24), np.uint16), 'single-channel'),
        (np.zeros((16, 20), np.uint8), '20x16 pixels'),
    ],
)
def test_a_bad_label_is_named(tmp_path, pixels, words):
    segnet_tree(tmp_path / 'raw')
    path = stubs.write(tmp_path / 'raw' / 'valannot' / 'a b.png', pixels)
    with pytest.raises(ValueError, match=words) as caught:
        convert_camvid(tmp_path / 'raw', tmp_path / 'out')
    assert str(path) in str(caught.value)


def test_a_missing_label_is_named(tmp_path):
    segnet_tree(tmp_path / 'raw')
    (tmp_path / 'raw' / 'trainannot' / 'Jülich.png').unlink()
    with pytest.raises(FileNotFoundError, match=r'trainannot/Jülich\.png'):
        convert_camvid(tmp_path / 'raw', tmp_path / 'out')


def test_a_folder_that_is_not_camvid(tmp_path):
    with pytest.raises(FileNotFoundError, match='No CamVid'):
        convert_camvid(tmp_path, tmp_path / 'out')
