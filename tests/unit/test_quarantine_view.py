"""Whoever lists a quarantine that could not be looked through is told so, in both forms and beside the output."""

import io
import json

import pytest
from rich.console import Console

from replicator.core.model import LinkName
from replicator.core.quarantine_document import Document
from replicator.ports import Kept
from replicator.quarantine_view import print_documents, print_json

LINK = LinkName("orders:eu-west-1")
DOCUMENT = Document(1, LINK, "not_json", "", "o", "k", 0, 1, "")


@pytest.mark.parametrize("is_all", [True, False])
@pytest.mark.parametrize("is_json", [True, False])
def test_more_than_could_be_looked_at_is_said(
    capsys: pytest.CaptureFixture[str], *, is_all: bool, is_json: bool
) -> None:
    found = {LINK: Kept(1, [DOCUMENT], is_all)}
    if is_json:
        print_json(found)
    else:
        print_documents(found, Console(file=io.StringIO()))
    said = capsys.readouterr()
    assert ("there is more than could be looked at" in said.err) == (not is_all)
    if is_json:
        assert json.loads(said.out)["id"] == DOCUMENT.id, "and nothing else is among the lines"
