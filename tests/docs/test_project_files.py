"""The files that other programs read: workflows, forms, citation, notebooks."""

import json
import re

import pytest
import yaml

from ..tools.run import ROOT

WORKFLOWS = sorted((ROOT / '.github/workflows').glob('*.yml'))
FORMS = sorted(p for p in (ROOT / '.github/ISSUE_TEMPLATE').glob('*.yml') if p.stem != 'config')
TARGETS = set(re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE))


@pytest.mark.parametrize('path', WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_runs_targets_that_exist(path):
    workflow = yaml.safe_load(path.read_text())
    # `on` is a boolean of YAML 1.1.
    assert {'name', True, 'permissions', 'jobs'} <= set(workflow)
    for name, job in workflow['jobs'].items():
        assert set(as_list(job.get('needs', []))) <= set(workflow['jobs']), name
        matrix = job.get('strategy', {}).get('matrix', {})
        for step in job['steps']:
            assert ('uses' in step) != ('run' in step), step
            command = re.sub(r'\$\{\{ *matrix\.(\w+) *\}\}', r'\1', step.get('run', ''))
            if command.startswith('make '):
                words = [word for word in command.split()[1:] if '=' not in word]
                assert set(matrix['target'] if words == ['target'] else words) <= TARGETS


def as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


@pytest.mark.parametrize('path', FORMS, ids=lambda path: path.stem)
def test_issue_form_has_what_a_form_needs(path):
    form = yaml.safe_load(path.read_text())
    assert {'name', 'description', 'labels', 'body'} == set(form)
    asked = [part for part in form['body'] if part['type'] != 'markdown']
    assert all(part['id'] and part['attributes']['label'] for part in asked)


def test_citation_is_of_this_version_and_changelog_has_it():
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    source = (ROOT / 'mmseg_recall/__init__.py').read_text()
    version = re.search("__version__ = '(.+)'", source)[1]
    assert citation['version'] == version
    assert f'## [{version}]' in (ROOT / 'CHANGELOG.md').read_text()
    assert len(citation['preferred-citation']['authors']) == 5


@pytest.mark.parametrize(
    'path', sorted((ROOT / 'notebooks').glob('*.ipynb')), ids=lambda path: path.stem
)
def test_notebook_was_run_from_top_to_bottom_and_is_small(path):
    assert path.stat().st_size < 300_000
    cells = [c for c in json.loads(path.read_text())['cells'] if c['cell_type'] == 'code']
    assert [c['execution_count'] for c in cells] == list(range(1, len(cells) + 1))
    assert not any(o['output_type'] == 'error' for c in cells for o in c['outputs'])
