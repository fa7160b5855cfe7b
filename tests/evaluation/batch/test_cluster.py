"""What batches of one machine share with each other: nothing."""

from __future__ import annotations

import warnings

from evaluation.batch.cluster import embedded
from evaluation.batch.trust import for_this_run


def test_two_batches_beside_each_other_have_ports_of_their_own() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with embedded(for_this_run()) as first, embedded(for_this_run()) as second:
            assert first != second
