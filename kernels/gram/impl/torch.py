"""The weighted Gram matrix as dense float64 products on a torch device: for GPUs, where they cost little.

Measured on no GPU yet: the same code is checked on the CPU device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from musegnn.kernels.validation import Block, Floats

CELLS = 4096
ROWS = 4096


class DeviceGram:
    """Sums that stay on a torch device until they are read, of rows from `start` to `stop`.

    `mu` and `slopes` are those of :class:`musegnn.kernels.gram.WeightedGram`.
    """

    def __init__(self, mu: Floats, slopes: Floats, start: int, stop: int, device: str) -> None:
        self._device = torch.device(device)
        self._start, self._rows = start, stop - start
        self._mu = torch.from_numpy(mu[start:]).to(self._device)
        self._slopes = torch.from_numpy(slopes[start:]).to(self._device)
        shape = (2, self._rows, len(mu) - start)
        self._sums = torch.zeros(shape, dtype=torch.float64, device=self._device)

    def add(self, block: Block, depth: Floats) -> None:
        """Add a block of counts over all genes, 4096 cells at a time."""
        indptr, indices, data = block
        for first in range(0, len(depth), CELLS):
            last = min(first + CELLS, len(depth))
            entries = slice(int(indptr[first]), int(indptr[last]))
            lengths = torch.from_numpy(indptr[first + 1 : last + 1] - indptr[first:last])
            cell = torch.repeat_interleave(torch.arange(last - first), lengths).to(self._device)
            gene = torch.from_numpy(indices[entries]).to(self._device, torch.int64) - self._start
            count = torch.from_numpy(data[entries]).to(self._device, torch.float64)
            inside = gene >= 0
            cell, gene, count = cell[inside], gene[inside], count[inside]
            s = torch.from_numpy(depth[first:last]).to(self._device)[cell]
            for w in range(2):
                y = torch.zeros((last - first, len(self._mu)), dtype=torch.float64, device=self._device)
                y[cell, gene] = count / (self._mu[gene] + s * self._slopes[gene, w])
                for row in range(0, self._rows, ROWS):
                    part = slice(row, min(row + ROWS, self._rows))
                    self._sums[w, part].addmm_(y[:, part].T, y)

    def values(self) -> Floats:
        """Copy the sums to the host, shape (R, C, 2), C order."""
        result: Floats = self._sums.permute(1, 2, 0).contiguous().cpu().numpy()
        return result
