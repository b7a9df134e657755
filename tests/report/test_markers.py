"""Texts between a document's markers."""

from __future__ import annotations

from pathlib import Path

import pytest

from lshbench.errors import UsageError
from lshbench.report.markers import fill


def test_a_text_goes_between_the_markers_of_its_name_alone(tmp_path: Path) -> None:
    document = tmp_path / "README.md"
    design = "<!-- design:begin -->\nold\n<!-- design:end -->\n"
    document.write_text(f"a\n<!-- table:begin -->\nold\n<!-- table:end -->\nb\n{design}")
    fill(document, "table", "new \\1\n")
    assert document.read_text() == f"a\n<!-- table:begin -->\nnew \\1\n<!-- table:end -->\nb\n{design}"


@pytest.mark.parametrize("pairs", [0, 2])
def test_a_document_without_one_place_for_a_text_is_refused_and_left_as_it_is(tmp_path: Path, pairs: int) -> None:
    document = tmp_path / "README.md"
    before = "<!-- table:begin --><!-- table:end -->" * pairs
    document.write_text(before)
    with pytest.raises(UsageError, match=f"README.md: {pairs} places for the tables; expected one <!-- table:begin"):
        fill(document, "table", "new\n")
    assert document.read_text() == before
    with pytest.raises(UsageError, match="expected a document that is there"):
        fill(tmp_path / "none.md", "table", "new\n")
