"""Questions about embeddings: from what is asked to the files beside them."""

import csv
import json
import sys

import numpy as np
import pytest
from PIL import Image

from vit_backbones.embeddings.answers import Questions, answers, check_questions


@pytest.fixture
def file(write_embeddings, grouped_vectors, colored_images):
    return write_embeddings(grouped_vectors[0], model='vit')


def written(file):
    return sorted(path.name for path in file.parent.glob('file.*') if path != file)


def test_all_questions_at_once(file, grouped_vectors):
    with open('labels.csv', 'w', newline='') as lines:
        rows = [(f'{i}.png', f'g{number}') for i, number in enumerate(grouped_vectors[1])]
        csv.writer(lines).writerows([('path', 'label'), *rows[1:], ('none.png', 'g0')])
    lines = list(answers(Questions('images/3.png', 2, 'pca', 3, 'labels.csv'), file))
    kinds = ('classify.json', 'clusters.csv', 'clusters.png', 'pca.png', 'search.png')
    assert written(file) == [f'file.parquet.{kind}' for kind in kinds]
    assert lines[0].split()[::2] == ['1', 'images/9.png']
    assert '3 clusters of 6, 4, 2 images, silhouette 0.9' in ' '.join(lines)
    assert '1 of 12 images have no label' in lines
    assert '1 of 12 labels have no image, e.g. none.png' in lines
    assert json.loads(open('file.parquet.classify.json').read())['embeddings'] == dict(model='vit')


def test_an_image_that_is_not_in_the_file_is_embedded(file, grouped_vectors):
    Image.new('RGB', (5, 5)).save('3.png')  # the name of one that is
    vectors = grouped_vectors[0]
    line, _ = answers(
        Questions(search='3.png', top=1), file, lambda path: -vectors[0] * (path.name == '3.png')
    )
    expected = vectors @ -vectors[0] / np.linalg.norm(vectors, axis=1)
    assert line.split()[2] == f'images/{expected.argmax()}.png'


def test_a_query_in_the_file_needs_no_image_and_no_model(file):
    for image in file.parent.glob('images/*'):
        image.unlink()
    list(answers(Questions(search='3.png'), file))
    assert written(file) == ['file.parquet.search.png']


def test_another_image_needs_the_model(file):
    Image.new('RGB', (5, 5)).save('q.png')
    with pytest.raises(
        ValueError, match=r'q\.png is not in file\.parquet: name the model .*\(vit\)'
    ):
        list(answers(Questions(search='q.png'), file))


def test_a_query_that_does_not_exist_is_told(file):
    with pytest.raises(ValueError, match=r'q\.png: it does not exist'):
        list(answers(Questions(search='q.png'), file))


def test_what_was_left_out_of_the_file_is_reported(write_embeddings):
    file = write_embeddings(np.eye(4)[[0, 1, 2, 3, 0]] * [[1], [1], [1], [1], [np.nan]])
    assert 'left out 1 of 5 rows' in next(answers(Questions(search='0.png', top=1), file))


def test_checking_tells_whether_anything_is_asked():
    assert not check_questions(Questions())
    assert check_questions(Questions(cluster=2))


@pytest.mark.parametrize(
    ('asked', 'message'),
    [
        (dict(cluster=1), r'cluster=\.\.\. takes numbers from 2 on, got 1'),
        (dict(search='x', top=0), r'top=\.\.\. takes numbers from 1 on, got 0'),
    ],
)
def test_numbers_that_are_too_small_are_told(asked, message):
    with pytest.raises(ValueError, match=message):
        check_questions(Questions(**asked))


def test_labels_are_read_before_anything_else():
    with pytest.raises(FileNotFoundError):
        check_questions(Questions(classify='none.csv'))


def test_without_scikit_learn_the_fix_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, 'sklearn', None)
    fix = r'cluster=\.\.\. needs scikit-learn: pip install vit_backbones\[tools\]'
    with pytest.raises(ImportError, match=fix):
        check_questions(Questions(cluster=3))


def test_umap_is_looked_for_before_anything_else(monkeypatch):
    monkeypatch.setitem(sys.modules, 'umap', None)
    with pytest.raises(ImportError, match='plot=umap needs umap-learn'):
        check_questions(Questions(plot='umap'))
