"""The samples that a user gives for a claim, beside a box that was observed in training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sound_qkeras.errors import InputError
from sound_qkeras.interval import Interval
from sound_qkeras.network import Network, size_of
from sound_qkeras.network.boxes import margin_for
from sound_qkeras.network.classes import labels_of
from sound_qkeras.verify.evidence import outside_of

# Share of the samples that may lie outside of an observed box: more are not like what the model is trained on.
MOST_OUTSIDE = 0.1


def check_samples(network: Network, options: Mapping[str, Any]) -> None:
    """Samples and labels have to suit the network.

    Raises:
        InputError: they do not.
    """
    samples, labels = options.get("samples"), options.get("labels")
    if samples is not None and labels is not None:
        labels_of(labels, len(network.input_arrays(samples)), size_of(network.output_shape))
    elif samples is not None:
        network.input_arrays(samples)


def samples_inside(
    network: Network, options: Mapping[str, Any], box: Interval, source: str, before: Interval, *, observed: bool
) -> tuple[dict[str, Any], str, str]:
    """The samples in the box, and their labels, as options; how many are not, and the way out. Nothing where all of them are.

    Args:
        network: for the shape of its inputs.
        options: with all samples.
        box: the inputs.
        source: where the box came from.
        before: the box without its margin.
        observed: whether samples may be set aside: a box that was given has to hold all of them.

    Raises:
        InputError: some are outside of a given box, or many of an observed one.
    """
    samples, labels = options.get("samples"), options.get("labels")
    if samples is None:
        return {}, "", ""
    given = network.input_arrays(samples)
    outside = outside_of(given, box)
    if not np.any(outside):
        return {}, "", ""
    margin = margin_for(before, given)
    way = "give a box=" if margin is None else f"margin={margin:g} would hold them, or give a box="
    said = f"{np.sum(outside)} of {len(given)} samples lie outside the box"
    if not observed or np.mean(outside) > MOST_OUTSIDE:
        raise InputError(f"{said}, which is {source}; {way}")
    kept = {"samples": given[~outside], **({} if labels is None else {"labels": np.asarray(labels)[~outside]})}
    return kept, f"{said} and are set aside", way
