"""Which pieces of which images are shown, and that they hold what the files hold."""

import base64
import os

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mmseg_recall.comparison.panel import choose_images, make_panel, window_around
from mmseg_recall.comparison.record import read_record, write_record
from mmseg_recall.evaluation import Areas
from tests.report.records import record


def test_rarest_classes_each_in_the_image_that_shows_most_of_it():
    label = np.array([[90, 3, 0, 4], [80, 9, 0, 1], [70, 1, 0, 2]])
    # Class 2 is on no image; class 3 is rarest, then 1; 0 is the most frequent.
    assert choose_images(label, 3) == [(3, 0), (1, 1), (3, 2)]
    assert choose_images(label, 1) == [(3, 0)]


@pytest.mark.parametrize(
    ('label', 'expected'),
    [
        ([[9, 1], [9, 3], [9, 2], [9, 0]], [(1, 1), (1, 2), (1, 0)]),
        ([[1, 9], [3, 9]], [(0, 1), (0, 0)]),
        ([[9, 1], [9, 0], [9, 0]], [(1, 0)]),
        ([[9, 0], [8, 0]], []),
    ],
    ids=['two classes', 'the first is rare', 'on one image', 'the background alone'],
)
def test_the_most_frequent_class_is_never_shown_as_rare(label, expected):
    assert choose_images(np.array(label)) == expected


def test_no_image_is_shown_twice():
    assert choose_images(np.array([[5, 1, 2]]), 3) == [(1, 0)]


@pytest.mark.parametrize(
    ('centre', 'expected'),
    [((30, 45), (slice(20, 40), slice(30, 60))), ((0, 89), (slice(0, 20), slice(60, 90)))],
)
def test_window_is_a_third_around_the_largest_region_and_inside(centre, expected):
    mask = np.zeros((60, 90), dtype=bool)
    mask[centre] = True
    mask[centre[0], centre[1] - 1] = True
    assert window_around(mask) == expected
    mask[59, 0] = True  # a smaller region elsewhere
    assert window_around(mask) == expected


NAMES = {
    'plain': b'%d.png',
    'not UTF-8': b'\xff\xe9%d.png',
    'spaces, commas': b'a b, [%d].png',
    'beyond ASCII': 'größe %d.png'.encode(),
}


@pytest.mark.parametrize('kind', NAMES)
def test_pieces_are_those_of_the_files(tmp_path, kind):
    names = [os.fsdecode(NAMES[kind] % i) for i in range(2)]
    generator = np.random.default_rng(0)
    for folder in ('images', 'annotations', 'predictions'):
        (tmp_path / folder).mkdir()
    truths, predictions = [], []
    for i in range(2):
        truth = np.zeros((30, 60), dtype=np.uint8)
        truth[5 + i : 9, 40:44] = 1
        prediction = generator.integers(0, 2, truth.shape, dtype=np.uint8)
        picture = generator.integers(0, 255, (30, 60, 3), dtype=np.uint8)
        images = dict(images=picture, annotations=truth, predictions=prediction)
        for folder, image in images.items():
            (tmp_path / folder / names[i]).write_bytes(cv2.imencode('.png', image)[1].tobytes())
        truths.append(truth)
        predictions.append(prediction)
    label = np.array([np.bincount(truth.flatten(), minlength=2) for truth in truths])
    dataset = dict(
        type='BaseSegDataset',
        metainfo=dict(classes=('road', 'pole')),
        img_suffix='.png',
        data_root=str(tmp_path),
        data_prefix=dict(img_path='images', seg_map_path='annotations'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(20, 10)),
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ],
    )
    cfg = Config(dict(test_dataloader=dict(dataset=dataset)))
    areas = Areas(label, label, label)
    pole, again = make_panel(cfg, areas, ['road', 'pole'], tmp_path / 'predictions')
    shown = [os.fsencode(name).decode(errors='replace') for name in names]
    assert (pole['class'], pole['image']) == ('pole', shown[0])
    assert (again['class'], again['image']) == ('pole', shown[1])
    write_record(tmp_path / 'a.json', {**record('CE', 0), 'panel': [pole, again]})
    assert read_record(tmp_path / 'a.json')['panel'] == [pole, again]
    x0, y0, x1, y1 = pole['box']
    assert (x1 - x0, y1 - y0) == (20, 10)
    for key, whole in (('truth', truths[0]), ('prediction', predictions[0])):
        data = np.frombuffer(base64.b64decode(pole[key]), dtype=np.uint8)
        np.testing.assert_array_equal(cv2.imdecode(data, -1), whole[y0:y1, x0:x1])
    # Images that came or went since the test: none is shown under another's areas.
    for there in (label[:1], np.vstack([label, label])):
        assert make_panel(cfg, Areas(there, there, there), ['road', 'pole'], tmp_path) == []
