"""Every reference case of ``tests/golden``: equal to ours, or listed with the reason why it is not compared.

``docs/golden.md`` says which class and arguments each case is. All in float64: loss to 1e-9, gradients to 1e-7.
"""

from __future__ import annotations

from fnmatch import fnmatch

import golden_logits  # noqa: F401  (these four fill the table)
import golden_logits_more  # noqa: F401
import golden_maps  # noqa: F401
import golden_page
import golden_samples  # noqa: F401
import golden_variants  # noqa: F401
import pytest
from golden_cases import all_cases, assert_equals_reference
from golden_table import NOT_OURS, ours, reason

COMPARED = [(file, case) for file, case in all_cases() if reason(file, case) is None]


@pytest.mark.parametrize(("file", "case"), COMPARED)
def test_value_and_gradient_equal_the_reference(file, case):
    comparison = ours(file, case)
    assert comparison is not None, f"{file}/{case} is neither compared nor listed in NOT_OURS"
    assert_equals_reference(file, case, comparison.loss, **comparison.options)


@pytest.mark.parametrize("pattern", NOT_OURS)
def test_every_reason_belongs_to_a_case(pattern):
    assert any(fnmatch(f"{file}/{case}", pattern) for file, case in all_cases())


def test_the_page_of_reference_cases_is_the_one_that_the_table_gives():
    assert golden_page.PAGE.read_text(encoding="utf-8") == golden_page.page(), "python tests/losses/golden_page.py"
