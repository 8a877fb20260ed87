"""Order labels so that similar ones are adjacent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conpet.errors import ConfigError


def similarity_order(vectors: Mapping[str, NDArray[Any]]) -> list[str]:
    """Order labels by the similarity of their vectors.

    The labels are clustered hierarchically (average linkage of cosine distances), with optimal leaf ordering
    (Bar-Joseph et al., 2001).

    Args:
        vectors: A nonzero vector `[d]` for each label; at least two labels.

    Raises:
        ConfigError: SciPy is not installed.
    """
    try:
        from scipy.cluster.hierarchy import leaves_list, linkage
    except ImportError:
        raise ConfigError("tasks by similarity of labels need SciPy: pip install 'conpet[bench]'") from None
    labels = sorted(vectors)
    rows = np.stack([np.asarray(vectors[label], dtype=np.float64) for label in labels])
    tree = linkage(rows, method="average", metric="cosine", optimal_ordering=True)
    return [labels[leaf] for leaf in leaves_list(tree)]
