"""The methods' own options; imports no torch, so that wrong settings are reported at once."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from conpet.config import MethodConfig, Positive


class CrlConfig(MethodConfig):
    """Options of `crl`.

    Attributes:
        contrasted: Largest number of rows of the memory bank to draw at each step and contrast with.
    """

    contrasted: Positive = 1024


class DerppConfig(MethodConfig):
    """Options of `der++`.

    Attributes:
        alpha: Weight of the loss on the recorded outputs.
        beta: Weight of the labels of old examples.
    """

    alpha: Annotated[float, Field(ge=0)] = 0.1
    beta: Annotated[float, Field(ge=0)] = 1.0


class EaEmrConfig(MethodConfig):
    """Options of `ea-emr`.

    Attributes:
        alignment_ridge: Penalty on changing the alignment, relative to the mean square of the representations.
        alignment_examples: Largest number of old, and of new, examples to fit the alignment on.
    """

    alignment_ridge: Annotated[float, Field(gt=0)] = 1.0
    alignment_examples: Positive = 256


class EwcConfig(MethodConfig):
    """Options of `ewc`.

    Attributes:
        penalty: The paper's lambda: weight of old tasks relative to the new one.
        fisher_examples: Largest number of examples on which to estimate the Fisher information of a task.
    """

    penalty: Annotated[float, Field(ge=0)] = 3000.0
    fisher_examples: Positive = 100


class LwfConfig(MethodConfig):
    """Options of `lwf`.

    Attributes:
        distillation: The paper's lambda_o: weight of the old outputs relative to the new ones.
    """

    distillation: Annotated[float, Field(ge=0)] = 1.0


class OLoraConfig(MethodConfig):
    """Options of `o-lora`.

    Attributes:
        orthogonality: The paper's lambda_1: weight of the orthogonality loss.
    """

    orthogonality: Annotated[float, Field(ge=0)] = 0.5
