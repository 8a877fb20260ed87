"""The head over labels: what it stores, how it answers, and how labels are renamed and removed."""

from __future__ import annotations

import pytest
import torch

from conpet.artifact import InMemoryObject
from conpet.errors import CorruptionError, UnknownNameError
from conpet.heads.base import HEAD
from conpet.heads.labels import GroupedLabelHead, LabelHead, indices_of, label_document, linear_head, with_labels
from conpet.heads.stored import StoredHead, head_for, make_head
from conpet.modules.adapter import Adapter
from conpet.modules.module import module_artifact

WEIGHT = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
BIAS = torch.tensor([0.0, 0.5, 0.0])
LABELS = ["a", "b", "c"]


def stored() -> InMemoryObject:
    head = LabelHead().tensors(linear_head(WEIGHT, BIAS))
    return InMemoryObject(module_artifact(Adapter({}, {}), head, label_document(LABELS)))


def test_an_untrained_head_prefers_no_label() -> None:
    head = LabelHead()
    module = head.build(4, label_document(LABELS), torch.device("cpu"))
    assert module(torch.ones(2, 4)).tolist() == [[0.0] * 3] * 2


def test_the_loss_is_cross_entropy_and_competing_logits_share_its_softmax() -> None:
    head, module = LabelHead(), linear_head(WEIGHT, BIAS)
    representations, targets = torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1])
    logits = representations @ WEIGHT.T + BIAS
    expected = logits.logsumexp(dim=1) - logits[torch.arange(2), targets]
    torch.testing.assert_close(head.loss(module, representations, targets), expected)
    rival = torch.tensor([[3.0], [3.0]])
    beside = torch.cat([logits, rival], dim=1).logsumexp(dim=1) - logits[torch.arange(2), targets]
    torch.testing.assert_close(head.loss(module, representations, targets, rival), beside)


def test_labels_of_other_groups_do_not_compete_in_training() -> None:
    head, module = GroupedLabelHead(["text", "relation", "text"]), linear_head(WEIGHT, BIAS)
    representations, targets = torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([2, 1])
    logits = representations @ WEIGHT.T + BIAS
    expected = torch.stack([logits[0, [0, 2]].logsumexp(dim=0) - logits[0, 2], torch.tensor(0.0)])
    torch.testing.assert_close(head.loss(module, representations, targets), expected)
    assert head.document(LABELS) == LabelHead().document(LABELS)


def test_the_likeliest_label_is_the_answer_with_its_probability() -> None:
    read = StoredHead.read(stored())
    (outputs,) = read.outputs(torch.tensor([[0.0, 3.0]]))
    answer = read.head.answer(outputs, read.document)
    assert answer.value == "b"
    assert answer.score == pytest.approx(float(outputs.softmax(dim=0)[1]))


def test_accuracy_is_the_share_of_right_answers() -> None:
    measured = LabelHead().measure(["a", "b", None, "c"], ["a", "b", "c", "b"])
    assert (measured["accuracy"].value, measured["accuracy"].n) == (0.5, 4)
    assert LabelHead().measure([], []) == {}


def test_outputs_can_be_renamed_and_removed() -> None:
    fewer = with_labels(stored(), {"first": "a", "c": "c"})
    read = StoredHead.read(InMemoryObject(fewer))
    assert read.document["labels"] == ["first", "c"]
    torch.testing.assert_close(read.tensors["weight"], WEIGHT[[0, 2]])
    torch.testing.assert_close(read.tensors["bias"], BIAS[[0, 2]])


def test_targets_are_places_among_the_labels() -> None:
    assert indices_of(["b", "a", "c"], LABELS).tolist() == [1, 0, 2]
    assert LabelHead().targets(["c"], label_document(LABELS)).tolist() == [2]


def test_a_head_with_a_missing_parameter_is_corrupt_and_an_unknown_one_is_named() -> None:
    whole = stored().artifact
    torn = InMemoryObject(module_artifact(Adapter({}, {}), {"weight": WEIGHT}, whole.documents[HEAD]))
    with pytest.raises(CorruptionError, match="bias"):
        StoredHead.read(torn)
    with pytest.raises(UnknownNameError, match="no head 'poem'; have: labels"):
        head_for({"head": {"name": "poem"}})
    assert isinstance(make_head({"name": "labels"}), LabelHead)
