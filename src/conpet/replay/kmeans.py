"""k-means over the representations of one label's examples."""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDS = 50
"""Limit on the rounds of Lloyd's algorithm."""


def nearest_to_centres(points: Tensor, k: int, seed: int) -> list[int]:
    """Return k different points: for each cluster of k-means, its point nearest to the centre.

    Args:
        points: `[n, R]`.
        k: Number of centres, 0 or more; with k or fewer points all are returned.
        seed: Seed of the initial centres.

    Returns:
        Indices, ascending. If coinciding points leave fewer clusters than k, the first remaining points are added.
    """
    if k >= len(points):
        return list(range(len(points)))
    if k == 0:
        return []
    points = points.float()
    centres = k_means(points, k, seed)
    distances = torch.cdist(points, centres, compute_mode="donot_use_mm_for_euclid_dist")
    owners = distances.argmin(dim=1)
    # Only points of its own cluster count: a point of another cluster may lie nearer to the centre.
    own_distances = distances.masked_fill(owners.unsqueeze(1) != torch.arange(k), torch.inf)
    nearest = [index for cluster, index in enumerate(own_distances.argmin(dim=0).tolist()) if owners[index] == cluster]
    rest = (index for index in range(len(points)) if index not in nearest)
    return sorted([*nearest, *(index for index, _ in zip(rest, range(k - len(nearest)), strict=False))])


def k_means(points: Tensor, k: int, seed: int) -> Tensor:
    """Return the k centres `[k, R]` of Lloyd's algorithm from k-means++ (Arthur and Vassilvitskii 2007), float32.

    Args:
        points: `[n, R]`, float32, n > k.
        k: 1 or more.
        seed: Seed of the initial centres.
    """
    centres = _first_centres(points, k, torch.Generator().manual_seed(seed))
    owners = torch.full((len(points),), -1, dtype=torch.int64)
    for _ in range(ROUNDS):
        nearest = torch.cdist(points, centres, compute_mode="donot_use_mm_for_euclid_dist").argmin(dim=1)
        if torch.equal(nearest, owners):
            break
        owners = nearest
        sizes = torch.bincount(owners, minlength=k).unsqueeze(1)
        sums = torch.zeros_like(centres).index_add_(0, owners, points)
        centres = torch.where(sizes > 0, sums / sizes.clamp(min=1), centres)  # an empty cluster keeps its centre
    return centres


def _first_centres(points: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Draw initial centres among the points, in proportion to squared distance from the nearest centre so far."""
    chosen = [int(torch.randint(len(points), (1,), generator=generator))]
    squared = (points - points[chosen[0]]).square().sum(dim=1)
    while len(chosen) < k:
        weights = squared if bool(squared.sum() > 0) else torch.ones_like(squared)
        chosen.append(int(torch.multinomial(weights, 1, generator=generator)))
        squared = squared.minimum((points - points[chosen[-1]]).square().sum(dim=1))
    return points[chosen]
