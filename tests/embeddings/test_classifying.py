"""Labels from a file, and the accuracies of classifiers by cross-validation."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from vit_backbones.embeddings.classifying import (
    as_json,
    as_table,
    classify,
    match_labels,
    read_labels,
)
from vit_backbones.features.embedding_tables import read_embeddings


@pytest.fixture
def labelled(tmp_path):
    """Write a file of labels; gives its path."""

    def write(text, encoding='utf-8'):
        (tmp_path / 'labels.csv').write_text(text, encoding=encoding)
        return tmp_path / 'labels.csv'

    return write


@pytest.fixture
def noisy(write_embeddings):
    """Three overlapping classes of 5, 10 and 15 colored_images, and their labels."""
    labels = np.repeat(['a', 'b', 'c'], (5, 10, 15))
    means = np.repeat(np.eye(3), (5, 10, 15), axis=0)
    vectors = means + np.random.default_rng(0).normal(size=(30, 3)) * (0.3, 0.6, 1.5)
    return read_embeddings(write_embeddings(vectors)), labels


def folds_of(embeddings, labels):
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return folds.split(embeddings.vectors, labels)


def test_other_columns_and_empty_labels_are_passed_over(labelled):
    file = labelled('id,label,path\n1,dog,a.png\n2,,b.png\n3\n\n4,"cat, big",c.png\n', 'utf-8-sig')
    assert read_labels(file) == {'a.png': 'dog', 'c.png': 'cat, big'}


@pytest.mark.parametrize('head', ['', 'path;label', 'file,class'])
def test_another_header_is_told(head, labelled):
    with pytest.raises(ValueError, match=f"must be 'path,label', it is '{head}'"):
        read_labels(labelled(f'{head}\na.png,dog\n' if head else ''))


def test_two_labels_of_a_path_are_told(labelled):
    with pytest.raises(ValueError, match=r"labels\.csv: a\.png is 'dog' and 'cat'"):
        read_labels(labelled('path,label\na.png,dog\na.png,cat\n'))


def test_what_is_no_text_is_told(labelled):
    with pytest.raises(ValueError, match=r'labels\.csv: no CSV file in UTF-8'):
        read_labels(labelled('path,label\na.png,Bär\n', 'latin-1'))


def test_labels_find_their_images(write_embeddings):
    embeddings = read_embeddings(
        write_embeddings(np.eye(4), ['d/a.png', 'd/b.png', 'e/b.png', 'f.png'])
    )
    labels = {'a.png': 'x', 'e/b.png': 'y', 'g.png': 'z'}
    matched, unused = match_labels('l.csv', labels, embeddings)
    assert matched == ['x', None, 'y', None]
    assert unused == ['g.png']


def test_labels_without_any_image_are_told_with_an_example(write_embeddings):
    embeddings = read_embeddings(write_embeddings(np.eye(2)))
    with pytest.raises(ValueError, match=r"'x\.png' here, 'images/0\.png' there"):
        match_labels('l.csv', {'x.png': 'dog'}, embeddings)


def test_an_image_with_two_labels_is_told(write_embeddings):
    embeddings = read_embeddings(write_embeddings(np.eye(2)))
    with pytest.raises(ValueError, match=r"l\.csv: images/0\.png is 'dog' and 'cat'"):
        match_labels('l.csv', {'0.png': 'dog', 'images/0.png': 'cat'}, embeddings)


def test_knn_is_that_written_out(noisy):
    embeddings, labels = noisy
    unit = embeddings.vectors / np.linalg.norm(embeddings.vectors, axis=1, keepdims=True)
    expected = []
    for learned, tested in folds_of(*noisy):
        hits = 0
        for i in tested:
            cosines = unit[learned] @ unit[i]
            near = np.argsort(-cosines)[:20]
            votes = {name: 0.0 for name in 'abc'}
            for j in near:
                votes[labels[learned[j]]] += np.exp(cosines[j] / 0.07)
            hits += max(votes, key=votes.get) == labels[i]
        expected.append(hits / len(tested))
    found = classify(*noisy).accuracies['kNN (k = 20, cosine)']
    assert len(set(expected)) > 1
    assert np.allclose(found, expected)


def test_logistic_regression_sees_vectors_standardised_by_the_training_folds(noisy):
    embeddings, labels = noisy
    expected = []
    for learned, tested in folds_of(*noisy):
        scaler = StandardScaler().fit(embeddings.vectors[learned])
        model = LogisticRegression(max_iter=1000)
        model.fit(scaler.transform(embeddings.vectors[learned]), labels[learned])
        expected.append(model.score(scaler.transform(embeddings.vectors[tested]), labels[tested]))
    assert np.allclose(classify(*noisy).accuracies['logistic regression'], expected)


def test_the_baseline_is_the_share_of_the_largest_class(noisy):
    assert np.allclose(classify(*noisy).accuracies['most frequent class'], 0.5)


def test_groups_that_lie_apart_are_told_apart(write_embeddings, grouped_vectors):
    vectors, numbers = (np.concatenate([each, each]) for each in grouped_vectors)
    scores = classify(read_embeddings(write_embeddings(vectors)), [f'g{i}' for i in numbers])
    assert scores.accuracies['kNN (k = 18, cosine)'].tolist() == [1, 1, 1, 1]


def test_the_rarest_class_limits_the_folds_and_single_images_are_left_out(
    write_embeddings, grouped_vectors
):
    vectors, numbers = grouped_vectors
    labels = [f'g{i}' for i in numbers]
    labels[0], labels[2] = None, 'alone'
    scores = classify(read_embeddings(write_embeddings(vectors)), labels)
    assert scores.counts == dict(g0=4, g1=4, g2=2)
    assert scores.rare == dict(alone=1)
    assert {len(each) for each in scores.accuracies.values()} == {2}
    assert "2 folds of 10 images in 3 classes (no more folds, as 'g2' has 2" in as_table(scores)


@pytest.mark.parametrize('labels', [['a'] * 4, ['a', 'a', 'b', None]])
def test_one_class_is_not_enough(labels, write_embeddings):
    with pytest.raises(ValueError, match="two classes with 2 images each, there are 'a' "):
        classify(read_embeddings(write_embeddings(np.eye(4))), labels)


def test_the_record_holds_what_the_table_tells(noisy):
    scores = classify(*noisy)
    record = json.loads(as_json(scores, dict(model='vit')))
    assert record['embeddings'] == dict(model='vit')
    assert record['classes'] == dict(a=5, b=10, c=15)
    for name, each in scores.accuracies.items():
        assert record['accuracy'][name]['folds'] == each.tolist()
        line = next(line for line in as_table(scores).splitlines() if name in line)
        assert line.endswith(f'{each.mean():.3f} ± {each.std():.3f}')
        assert record['accuracy'][name]['mean'] == pytest.approx(each.mean())


def test_a_folder_is_no_file_of_labels(tmp_path):
    with pytest.raises(IsADirectoryError):
        read_labels(Path(tmp_path))
