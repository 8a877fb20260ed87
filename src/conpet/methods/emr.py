"""Episodic memory replay."""

from __future__ import annotations

from conpet.methods.static import StaticMethod


class EmrMethod(StaticMethod):
    """Episodic memory replay, EMR (Wang et al. 2019, arXiv 1903.02588, section 3.2), on one PET module.

    Minimises the cross-entropy over all labels seen on batches of half new, half old examples:

        L = -1/n sum_i log softmax(W f(x_i) + b)[y_i]

    With `replay=dynamic` this is Static ConPET's EMR* (Song et al. 2023, section 3.2): old examples are drawn from all
    that is stored. With `replay=fixed` it is the original EMR with a small memory: for each label, the examples nearest
    to the centres of k-means over their representations, repeated until the old half of the budget is filled.

    Stored: the module, the head and the replay memory. Wang et al. replay old examples after the new ones, and rank
    against sampled negatives; here, as in Song et al., both are in every batch, under a softmax over all labels.
    """

    name = "emr"
