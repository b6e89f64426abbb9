"""The order of the tokens of a forward pass, and which of them see each other in a block."""

import contextlib
import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vit_backbones.position import Grid, cells

_chosen: bool | None = None


def one_call(device: torch.device) -> bool:
    """Whether all windows of a block go into one call, or one row of windows after the other.

    A GPU waits for calls; on a CPU a row at a time needs less memory. Compiled code makes one call,
    since a loop over rows would be compiled anew for each number of them.
    """
    if _chosen is not None:
        return _chosen
    return device.type != 'cpu' or torch.compiler.is_compiling()


@contextlib.contextmanager
def in_one_call(choice: bool) -> Iterator[None]:
    """Choose one way on every device, in place of the rule `one_call`."""
    global _chosen
    before, _chosen = _chosen, choice
    try:
        yield
    finally:
        _chosen = before


class Layout:
    """The tokens of one forward pass, window after window, and those that are hidden.

    Attributes:
        num_prefix: Tokens P in front of the patches.
        cells: (h, w) of each image's own patches, top left in the grid; `None` if all fill it.
        sides: (rows, columns) of a window. One that covers the grid is the grid.
        windowed: Whether there is more than one window.
        keys: (B or 1, 1, windows, 1, P + n), the keys that the patches of a window may see, without
            the axis of windows if there is one; `None`: all. A window without any real patch sees
            everything; its output is not used.
        seen_by_prefix: (B or 1, 1, 1, windows * (P + n)): 0 for each token once, else -infinity.
        hidden: The same, (..., rows + columns), of those rows and columns of a window that hold no
            real patch; `None`: all do.
    """

    keys: Tensor | None = None
    seen_by_prefix: Tensor | None = None
    hidden: Tensor | None = None

    def __init__(
        self,
        grid: Grid,
        num_prefix: int,
        device: torch.device,
        *,
        window: int = 0,
        masked: bool = False,
        cells_of_images: tuple[Grid, ...] | None = None,
    ) -> None:
        self.grid, self.num_prefix, self.window = grid, num_prefix, window
        self.cells = cells_of_images
        self.windowed = 0 < window < max(grid)
        self.sides = (window, window) if self.windowed else grid
        self.counts = cells(grid, self.sides)  # windows (down, across)
        self._full = tuple(c * s for c, s in zip(self.counts, self.sides, strict=True))
        self._fills = self._full == grid
        hides = masked and not (self._fills and self.cells is None)
        if hides or (self.windowed and num_prefix):
            self._hide(self._real(device), hides)

    @property
    def changes_nothing(self) -> bool:
        """Whether every token sees every other."""
        return not self.windowed and self.keys is None

    def arranged(self, x: Tensor) -> Tensor:
        """(..., P + h*w, C) to whole windows, padded with zeros: (..., P + windows * n, C)."""
        if not self.windowed:
            return x
        (down, across), (rows, columns), (height, width) = self.counts, self.sides, self.grid
        prefix, patches = _split(x, height * width)
        maps = patches.unflatten(-2, self.grid)
        if not self._fills:
            maps = F.pad(maps, (0, 0, 0, self._full[1] - width, 0, self._full[0] - height))
        parts = maps.reshape(*x.shape[:-2], down, rows, across, columns, x.shape[-1])
        return _cat(prefix, parts.transpose(-4, -3).flatten(-5, -2))

    def restored(self, x: Tensor) -> Tensor:
        """Undo `arranged`."""
        if not self.windowed:
            return x
        prefix, patches = _split(x, math.prod(self._full))
        parts = patches.unflatten(-2, (*self.counts, *self.sides)).transpose(-4, -3)
        maps = parts.reshape(*x.shape[:-2], *self._full, x.shape[-1])
        if not self._fills:
            (height, width), (rows, columns) = self.grid, self._full
            maps = F.pad(maps, (0, 0, 0, width - columns, 0, height - rows))
        return _cat(prefix, maps.flatten(-3, -2))

    def rows_of_windows(self, x: Tensor | None) -> Sequence[Tensor | None]:
        """(..., windows, K, d) by rows of windows, (..., across, K, d) each."""
        down, across = self.counts
        return [None] * down if x is None else x.split(across, dim=-3)

    def _real(self, device: torch.device) -> Tensor:
        """(B or 1, windows, n), whether a patch is one of the image."""
        real = torch.ones(1, *self.grid, dtype=torch.bool, device=device)
        real = real if self.cells is None else inside(self.cells, self.grid, device)
        arranged = self.arranged(real.flatten(1)[..., None])[..., 0]
        return arranged.unflatten(1, (math.prod(self.counts), -1))

    def _hide(self, real: Tensor, hides: bool) -> None:
        """Set what is hidden."""
        prefix = (self.num_prefix, 0)
        once = F.pad(real[:, :1], prefix, value=True), F.pad(real[:, 1:], prefix, value=False)
        seen = torch.cat(once, dim=1).flatten(1)[:, None, None]
        self.seen_by_prefix = torch.zeros_like(seen, dtype=torch.float).masked_fill(
            ~seen, -torch.inf
        )
        if hides:
            maps = real.unflatten(2, self.sides)
            self.hidden = self._of_windows(torch.cat([~maps.any(3), ~maps.any(2)], dim=2))
            seen = real | ~real.any(dim=2, keepdim=True)
            self.keys = self._of_windows(F.pad(seen, prefix, value=True))

    def _of_windows(self, mask: Tensor) -> Tensor:
        mask = mask[:, None, :, None]
        return mask if self.windowed else mask[:, :, 0]


def _split(x: Tensor, patches: int) -> tuple[Tensor | None, Tensor]:
    """The tokens (..., P, C) in front of the patches, if any, and these."""
    num_prefix = x.shape[-2] - patches
    return x.split((num_prefix, patches), dim=-2) if num_prefix else (None, x)


def _cat(prefix: Tensor | None, patches: Tensor) -> Tensor:
    return patches if prefix is None else torch.cat([prefix, patches], dim=-2)


def inside(sizes: Sequence[Grid], shape: Grid, device: torch.device) -> Tensor:
    """(B, *shape), whether a cell lies inside of its image, in the top left corner."""
    (rows, columns), (height, width) = torch.tensor(sizes, device=device).T, shape
    down = torch.arange(height, device=device) < rows[:, None]
    across = torch.arange(width, device=device) < columns[:, None]
    return down[:, :, None] & across[:, None, :]
