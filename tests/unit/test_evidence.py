"""Evidence and what names it."""

from __future__ import annotations

import hashlib

import pytest

from hanzo_compute.model import canonical
from hanzo_compute.model.evidence import Evidence, Platform


@pytest.mark.parametrize("names", [(), ("report",), ("vek", "a.b-c_9", "a.b", "a_b", "a-b", "report", "z" * 64)])
@pytest.mark.parametrize("platform", Platform)
def test_its_digest_is_of_the_canonical_form(platform: Platform, names: tuple[str, ...]) -> None:
    evidence = Evidence(platform, {name: name.encode() * 3 for name in names})
    files = {name: hashlib.sha256(data).hexdigest() for name, data in evidence.files.items()}
    assert evidence.digest() == canonical.digest({"platform": platform.value, "files": files})
