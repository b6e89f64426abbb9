"""Operators and waits, counted on a CPU as a GPU would have them."""

import numpy as np
import pytest
import torch

from vit_backbones.benchmark.counting import counted

X = torch.arange(6.0)
CHOSEN = X > 2


@pytest.mark.parametrize(
    ('step', 'waits'),
    [
        (lambda: X.sum().item(), {'_local_scalar_dense': 1}),
        (lambda: bool(CHOSEN.any()), {'_local_scalar_dense': 1}),
        (lambda: max(X.sum(), 1), {'_local_scalar_dense': 1}),
        (lambda: X[CHOSEN], {'index': 1}),
        (lambda: X.clone().__setitem__(CHOSEN, 0.0), {'index_put_': 1}),
        (lambda: torch.where(CHOSEN), {'nonzero': 1}),
        (lambda: X.unique(), {'_unique2': 1}),
        (lambda: X.repeat_interleave(CHOSEN.long()), {'repeat_interleave': 1}),
        (lambda: X.tolist(), {'tolist': 1}),
        (lambda: X.cpu(), {'cpu': 1}),
        (lambda: X.to('cpu'), {'to': 1}),
        (lambda: np.asarray(X), {'__array__': 1}),
        (lambda: torch.tensor([1, 2]), {'tensor': 1}),
        (lambda: X.new_tensor([1.0]), {'new_tensor': 1}),
        (lambda: torch.from_numpy(np.ones(3)), {'lift_fresh.default': 1}),
        (lambda: X[torch.arange(2)] + X.repeat_interleave(1)[:2], {}),
        (lambda: X.to(X.device).double(), {}),
    ],
)
def test_each_way_to_wait_is_seen_once(step, waits):
    assert counted(step).waits == waits


def test_operators_of_the_backward_pass_count():
    leaf = torch.ones(3, requires_grad=True)
    forward = counted(lambda: leaf.exp().sum())
    both = counted(lambda: leaf.exp().sum().backward())
    with torch.no_grad():
        assert counted(lambda: leaf.exp().sum()).operators == 2
    assert both.operators > forward.operators + 2
    assert both.synchronisations == 0
