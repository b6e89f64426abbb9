"""Parts survive a kill, and are not taken for those of another job."""

from pathlib import Path

import numpy as np
import pytest

from vit_backbones.features.parts import Parts


@pytest.fixture
def parts(tmp_path):
    """A started folder of parts."""
    started = Parts(tmp_path / '.a.npz.parts', 'job')
    started.start(Path('x.npz'), overwrite=False)
    return started


def again(parts, job='job'):
    parts._lock.close()  # as when a process ends
    return Parts(parts.folder, job)


def test_parts_are_found_again(parts):
    parts.write({'7.0': np.arange(3.0), '7.1': np.ones((2, 2))}, {5: 'broken'})
    later = again(parts)
    later.start(Path('x.npz'), overwrite=False)
    assert later.read() == {5: 'broken'}
    assert later.indices == [7]
    assert np.array_equal(later.arrays(7, 2)[0], np.arange(3.0))
    assert later.shapes(7, 2) == [[3], [2, 2]]


def test_a_part_of_unreadable_images_alone(parts):
    parts.write({}, {0: 'broken'})
    assert parts.read() == {0: 'broken'}
    assert parts.indices == []


def test_drafts_of_a_killed_write_are_removed(parts):
    (parts.folder / '.00000000.safetensors.1').write_bytes(b'half')
    later = again(parts)
    later.start(Path('x.npz'), overwrite=False)
    assert later.read() == {}
    assert not list(parts.folder.glob('.*'))


def test_parts_of_another_job_are_refused(parts):
    with pytest.raises(ValueError, match=r'unfinished run with other .* overwrite=True'):
        again(parts, 'other').start(Path('x.npz'), overwrite=False)


@pytest.mark.parametrize(('job', 'kept'), [('job', [0]), ('other', [])])
def test_overwrite_throws_parts_of_other_jobs_away(job, kept, parts):
    parts.write({'0.0': np.ones(1)}, {})
    later = again(parts, job)
    later.start(Path('x.npz'), overwrite=True)
    later.read()
    assert later.indices == kept


def test_parts_of_nobody_are_those_of_a_killed_overwrite(parts):
    parts.write({'0.0': np.ones(1)}, {})
    (parts.folder / 'job.json').unlink()
    later = again(parts)
    later.start(Path('x.npz'), overwrite=False)
    later.read()
    assert later.indices == []


def test_two_runs_do_not_share_parts(parts):
    with pytest.raises(ValueError, match=r'^x\.npz: another run is at work on it'):
        Parts(parts.folder, 'job').start(Path('x.npz'), overwrite=False)


def test_a_damaged_part_is_told(parts):
    (parts.folder / '00000000.safetensors').write_bytes(b'half')
    with pytest.raises(ValueError, match=r'is damaged .*: remove it'):
        parts.read()


def test_nothing_stays(parts):
    parts.remove()
    assert not parts.folder.exists()


def test_runs_over_other_images_keep_their_parts_in_a_shared_folder(tmp_path):
    first, second = (Parts(tmp_path, 'job', shared=True) for _ in range(2))
    first.write({'1.0': np.ones(1), '2.0': np.ones(2)}, {0: 'broken'})
    second.write({}, {0: 'broken'})  # as when only that image is tried again
    second.write({'1.0': np.ones(1)}, {})
    assert first.read() == {0: 'broken'}
    assert first.indices == [1, 2]
    second.write({'0.0': np.zeros(3)}, {})
    first.read()
    assert [first.arrays(index, 1)[0].size for index in first.indices] == [3, 1, 2]
