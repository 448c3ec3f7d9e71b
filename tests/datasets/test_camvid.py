import numpy as np
import pytest
from mmseg.registry import DATASETS

from mmseg_recall.datasets.convert import convert_dataset

from . import stubs
from .raw.camvid import write_raw


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
    raw = tmp_path / 'raw' / inside
    truth = write_raw(raw, 3, suffix)
    convert_dataset('camvid', tmp_path / 'raw', tmp_path / 'out')
    for split in ('train', 'val', 'test'):
        labels = load(tmp_path / 'out', split)
        wanted = {path.name: ids for path, ids in truth.items() if path.parent.name[:-5] == split}
        assert labels.keys() == wanted.keys()
        for name, label in labels.items():
            np.testing.assert_array_equal(label, wanted[name])


def test_mmseg_layout_without_a_test_split(tmp_path):
    truth = stubs.tree(tmp_path / 'raw', {'train': 3, 'val': 2}, count=11)
    truth['val']['val0.png'][2:5] = 255
    stubs.write(tmp_path / 'raw' / 'annotations' / 'val' / 'val0.png', truth['val']['val0.png'])
    convert_dataset('camvid', tmp_path / 'raw', tmp_path / 'out')
    for split in ('train', 'val'):
        labels = load(tmp_path / 'out', split)
        assert labels.keys() == truth[split].keys()
        for name, label in labels.items():
            np.testing.assert_array_equal(label, truth[split][name])
    assert not (tmp_path / 'out' / 'images' / 'test').exists()


def test_a_folder_that_is_not_camvid(tmp_path):
    with pytest.raises(FileNotFoundError, match='No CamVid'):
        convert_dataset('camvid', tmp_path, tmp_path / 'out')
