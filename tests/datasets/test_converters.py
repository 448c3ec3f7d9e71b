"""What every converter must do, with the release of each data set."""

import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest

import mmseg_recall
from mmseg_recall.datasets import convert, convert_virtual_kitti
from mmseg_recall.files import write_atomically
from mmseg_recall.out_folder import Manifest, write_manifest

from . import stubs

ROOT = Path(mmseg_recall.__file__).parents[1]
HEIGHT, WIDTH = stubs.SIZE[::-1]


class Converter:
    """A converter, and how to write what it reads: a module of :mod:`tests.datasets.raw`."""

    def __init__(self, name: str) -> None:
        module = name.replace('-', '_')
        raw = import_module(f'{__package__}.raw.{module}')
        self.name, self.raw, self.bad_labels = name, raw, raw.BAD_LABELS
        self.find_pairs = import_module(f'{convert.__package__}.convert_{module}').find_pairs
        self.convert = partial(convert.convert_dataset, name)

    def write_raw(self, root: Path, pairs: int = 6) -> dict[Path, np.ndarray]:
        """A release of at least so many images; the ids wanted for each raw label."""
        return self.raw.write_raw(root, -(-pairs // len(self.raw.views())))


CONVERTERS = [Converter(name) for name in convert.converters()]
CAMVID = Converter('camvid')
TOOL = ROOT / 'tools' / 'convert_dataset.py'
DAMAGE = {
    stubs.missing: (FileNotFoundError, 'no label'),
    stubs.truncated: (ValueError, 'truncated'),
    stubs.empty: (ValueError, '0 bytes'),
    stubs.damaged: (ValueError, 'damaged'),
    stubs.folder: (ValueError, 'cannot be read'),
    # To Python, a loop does not exist.
    stubs.symlink_loop: (FileNotFoundError, 'no label'),
    stubs.bomb: (ValueError, 'damaged'),
}

each_converter = pytest.mark.parametrize('converter', CONVERTERS, ids=lambda c: c.name)


@pytest.fixture
def few_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """A release of Virtual KITTI of 8 views, not of 100, which are many files."""
    monkeypatch.setattr(convert_virtual_kitti, 'SCENES', ('Scene01', 'Scene20'))
    monkeypatch.setattr(convert_virtual_kitti, 'VARIATIONS', ('clone', 'rain'))


def run_tool(converter: Converter, *arguments, monkeypatch) -> None:
    monkeypatch.setattr(sys, 'argv', [str(word) for word in (TOOL, converter.name, *arguments)])
    runpy.run_path(str(TOOL), run_name='__main__')


def check_tree(converter: Converter, raw: Path, out: Path, truth: dict[Path, np.ndarray]) -> None:
    """The tree has each image and label, with the ids wanted, and nothing else."""
    files = {out / 'MANIFEST'}
    for pair in converter.find_pairs(raw):
        image, label = pair.converted(out)
        files |= {image, label}
        ids = cv2.imdecode(np.fromfile(label, np.uint8), cv2.IMREAD_UNCHANGED)
        assert ids.dtype == np.uint8
        np.testing.assert_array_equal(ids, truth[pair.raw_label])
        assert image.read_bytes() == pair.raw_image.read_bytes()
    assert len(files) == 2 * len(truth) + 1
    assert {path for path in out.rglob('*') if path.is_file()} == files


@each_converter
def test_conversion_keeps_ids_and_images(tmp_path, converter):
    raw, out = tmp_path / 'à convertir', tmp_path / 'out'
    truth = converter.write_raw(raw)
    converter.convert(raw, out)
    check_tree(converter, raw, out, truth)


@pytest.mark.usefixtures('few_views')
@pytest.mark.parametrize(
    ('converter', 'spoil', 'error', 'words'),
    [
        pytest.param(converter, spoil, *expected, id=f'{converter.name}-{spoil.__name__}')
        for converter in CONVERTERS
        for spoil, expected in DAMAGE.items()
    ]
    + [
        pytest.param(
            converter,
            lambda path, pixels=pixels: stubs.write(path, pixels),
            ValueError,
            words,
            id=f'{converter.name}-{name}',
        )
        for converter in CONVERTERS
        for name, (pixels, words) in converter.bad_labels.items()
    ],
)
def test_a_bad_label_is_named_and_mending_it_is_enough(tmp_path, converter, spoil, error, words):
    raw, out = tmp_path / 'raw', tmp_path / 'out'
    truth = converter.write_raw(raw)
    path = list(truth)[len(truth) // 2]
    good = path.read_bytes()
    spoil(path)
    with pytest.raises(error, match=words) as caught:
        converter.convert(raw, out)
    assert str(path) in str(caught.value)
    assert not out.exists()
    if error is FileNotFoundError:
        # Looked for before anything is written.
        assert not out.with_name('out.partial').exists()
    stubs.remove(path)
    path.write_bytes(good)
    converter.convert(raw, out)
    check_tree(converter, raw, out, truth)


@pytest.mark.usefixtures('few_views')
@each_converter
@pytest.mark.parametrize(
    ('spoil', 'words'),
    [
        (stubs.truncated, 'truncated'),
        (stubs.empty, '0 bytes'),
        (stubs.folder, 'cannot be read'),
        (stubs.symlink_loop, 'cannot be read'),
    ],
)
def test_a_bad_image_is_named(tmp_path, converter, spoil, words):
    converter.write_raw(tmp_path / 'raw')
    path = converter.find_pairs(tmp_path / 'raw')[1].raw_image
    spoil(path)
    with pytest.raises(ValueError, match=words) as caught:
        converter.convert(tmp_path / 'raw', tmp_path / 'out')
    assert str(path) in str(caught.value)


@pytest.mark.usefixtures('few_views')
@each_converter
def test_a_label_without_an_image_is_named(tmp_path, converter):
    """The image that was lost would change which frames are in which split."""
    raw, out = tmp_path / 'raw', tmp_path / 'out'
    converter.write_raw(raw, 16)
    pair = converter.find_pairs(raw)[1]
    pair.raw_image.unlink()
    with pytest.raises(FileNotFoundError, match=r'1 of .* labels have no image') as caught:
        converter.convert(raw, out)
    assert str(pair.raw_label) in str(caught.value)
    assert not out.exists() and not out.with_name('out.partial').exists()


@pytest.mark.slow
@each_converter
def test_a_full_disk_is_named_and_leaves_nothing_that_looks_whole(tmp_path, converter, monkeypatch):
    raw, out, partial = tmp_path / 'raw', tmp_path / 'out', tmp_path / 'out.partial'
    # A label takes 11,000 bytes. No file may be larger than 8,000, which ends in the middle of a
    # label and has room for what importing torch 2.4 writes in each process; images are linked.
    monkeypatch.setattr(stubs, 'SIZE', (192, 128))
    truth = converter.write_raw(raw)
    code = """if True:
        import resource, runpy, signal, sys
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, 8_000))
        sys.argv = sys.argv[1:]
        runpy.run_path(sys.argv[0], run_name='__main__')"""
    run = subprocess.run(
        [sys.executable, '-c', code, str(TOOL), converter.name, str(raw), '--out', str(out)],
        # A measurement of coverage would write a file, too.
        env={
            **{name: value for name, value in os.environ.items() if 'COVERAGE' not in name},
            'PYTHONPATH': str(ROOT),
            'OMP_NUM_THREADS': '1',
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.returncode == 1
    # What the tool says comes last, and no traceback before it.
    assert re.search(
        rf"File too large; not written: '{partial}/(annotations/.*\.png|MANIFEST)'\n$", run.stderr
    )
    assert 'Traceback' not in run.stderr
    assert not out.exists()
    assert not list(partial.rglob('*.tmp')) and not list(partial.rglob('annotations/**/*.png'))
    converter.convert(raw, out)
    check_tree(converter, raw, out, truth)


@each_converter
def test_a_finished_tree_is_not_overwritten(tmp_path, converter, monkeypatch, capsys):
    raw, out = tmp_path / 'raw', tmp_path / 'out'
    converter.write_raw(raw)
    run_tool(converter, raw, '--out', out, monkeypatch=monkeypatch)
    before = {path: path.stat().st_mtime_ns for path in out.rglob('*')}
    run_tool(converter, raw, '--out', out, monkeypatch=monkeypatch)
    assert f'{out} is complete' in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.rglob('*')} == before


def made_of_another_tree(converter: Converter, raw: Path, out: Path) -> None:
    converter.write_raw(raw.with_name('other'))
    converter.convert(raw.with_name('other'), out)


def without_a_file(converter: Converter, raw: Path, out: Path) -> None:
    converter.convert(raw, out)
    converter.find_pairs(raw)[1].converted(out)[1].unlink()


def made_by_another_tool(converter: Converter, raw: Path, out: Path) -> None:
    write_manifest(out, Manifest('report'))


OCCUPIED = {
    'the raw tree': (lambda c, raw, out: raw.rename(out), 'did not make'),
    'a thesis': (lambda c, raw, out: stubs.write(out / 'thesis.png', np.zeros(1)), 'thesis.png'),
    'a file': (lambda c, raw, out: out.write_bytes(b'mine'), 'is a file'),
    'a manifest of nobody': (
        lambda c, raw, out: write_atomically(out / 'MANIFEST', b'mine'),
        'did not make',
    ),
    'another tool': (made_by_another_tool, 'was made by report'),
    'another tree': (made_of_another_tree, 'other, not from'),
    'a lost label': (without_a_file, 'lacks 1 of its'),
}


@pytest.mark.parametrize('occupy', OCCUPIED)
def test_what_the_converter_did_not_make_is_refused(tmp_path, occupy, monkeypatch, capsys):
    converter, raw, out = CAMVID, tmp_path / 'raw', tmp_path / 'out'
    converter.write_raw(raw)
    put, message = OCCUPIED[occupy]
    put(converter, raw, out)
    before = {path: path.stat().st_mtime_ns for path in [out, *out.rglob('*')]}
    with pytest.raises(SystemExit) as stopped:
        run_tool(converter, raw, '--out', out, monkeypatch=monkeypatch)
    assert stopped.value.code == 1
    assert message in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in [out, *out.rglob('*')]} == before
    assert not out.with_name('out.partial').exists()


def replaced(path: Path, pixels: np.ndarray) -> None:
    """Another file in the place of one, with its size, its time and, it may be, its inode."""
    state = path.stat()
    path.unlink()
    stubs.write(path, pixels)
    with path.open('ab') as file:
        file.write(bytes(max(0, state.st_size - path.stat().st_size)))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.mark.parametrize('kind', ['label', 'image', 'both', 'a pair less'])
@pytest.mark.parametrize('links', [True, False])
def test_another_raw_tree_of_equal_names_and_times_is_noticed(tmp_path, monkeypatch, kind, links):
    converter = CAMVID
    raw, out, partial = tmp_path / 'raw', tmp_path / 'out', tmp_path / 'out.partial'
    if not links:

        def no_link(*_: object) -> None:
            raise OSError

        monkeypatch.setattr(os, 'link', no_link)
    truth = converter.write_raw(raw)
    converter.convert(raw, out)
    out.rename(partial)  # as a run that was killed at its end
    pair = converter.find_pairs(raw)[1]
    if kind == 'a pair less':
        pair.raw_image.unlink()
        pair.raw_label.unlink()
        del truth[pair.raw_label]
    if kind in ('label', 'both'):
        truth[pair.raw_label] = np.full((HEIGHT, WIDTH), 3, np.uint8)
        replaced(pair.raw_label, truth[pair.raw_label])
    if kind in ('image', 'both'):
        replaced(pair.raw_image, np.full((HEIGHT, WIDTH, 3), 9, np.uint8))
    converter.convert(raw, out)
    check_tree(converter, raw, out, truth)


def test_another_raw_tree_in_another_place_is_refused(tmp_path):
    converter = CAMVID
    raw, other, out = tmp_path / 'raw', tmp_path / 'other', tmp_path / 'out'
    converter.write_raw(raw)
    shutil.copytree(raw, other)  # with its times
    converter.convert(raw, out)
    out.rename(tmp_path / 'out.partial')
    with pytest.raises(FileExistsError, match=f'was made from {raw}, not from {other}'):
        converter.convert(other, out)


def test_a_folder_of_the_same_name_and_more_is_left_alone(tmp_path):
    converter = CAMVID
    raw, out, partial = tmp_path / 'raw', tmp_path / 'out', tmp_path / 'out.partial'
    converter.write_raw(raw)
    stubs.write(partial / 'thesis.png', np.zeros((2, 2), np.uint8))
    with pytest.raises(FileExistsError, match=r'out\.partial has thesis\.png'):
        converter.convert(raw, out)
    assert [path.name for path in partial.iterdir()] == ['thesis.png']


@each_converter
def test_the_tool_says_what_is_wrong(tmp_path, converter, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_tool(converter, tmp_path, '--out', tmp_path / 'out', monkeypatch=monkeypatch)
    assert stopped.value.code == 1
    assert str(tmp_path) in capsys.readouterr().err


@pytest.mark.slow
@each_converter
def test_a_killed_run_is_completed_by_running_it_again(tmp_path, converter):
    raw, out, partial = tmp_path / 'raw', tmp_path / 'out', tmp_path / 'out.partial'
    truth = converter.write_raw(raw, 60)
    # Reading the last label blocks, as nobody writes to the pipe: the run cannot get to its end.
    last = converter.find_pairs(raw)[-1].raw_label
    label = last.read_bytes()
    last.unlink()
    os.mkfifo(last)
    run = subprocess.Popen(
        [sys.executable, TOOL, converter.name, raw, '--out', out],
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        start_new_session=True,
    )
    while run.poll() is None and len(list(partial.rglob('annotations/**/*.png'))) < 20:
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    assert not out.exists()
    # The image is made after the label is written, so a pair with its image is finished.
    made = [pair.converted(partial) for pair in converter.find_pairs(raw)]
    finished = {label: label.stat().st_ino for image, label in made if image.exists()}
    assert finished
    # What a kill may leave besides: the beginning of a file. What it may not: a file of somebody's.
    beginning = made[-1][1]
    beginning.parent.mkdir(parents=True, exist_ok=True)
    beginning.with_name(f'.{beginning.name}.{run.pid}.tmp').write_bytes(b'\x89P')
    stray = partial / 'images' / 'train' / 'stray.png'
    stubs.write(stray, np.zeros((2, 2), np.uint8))

    last.unlink()
    last.write_bytes(label)
    with pytest.raises(FileExistsError, match=r'stray\.png is not of this conversion'):
        converter.convert(raw, out)
    stray.unlink()
    converter.convert(raw, out)
    check_tree(converter, raw, out, truth)
    for path, inode in finished.items():
        assert (out / path.relative_to(partial)).stat().st_ino == inode
