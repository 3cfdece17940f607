"""What mypy cannot see: `Pretrained` has no types, so it misses no member."""

from __future__ import annotations

from typing_extensions import get_protocol_members

from spiritlm_plugin import SpiritLM
from spiritlm_plugin.inference.protocols import InterleavedModel


def test_spirit_lm_has_what_the_protocol_names():
    members = get_protocol_members(InterleavedModel)
    assert members <= {*dir(SpiritLM)}
