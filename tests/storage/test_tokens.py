"""Tokens of artists: only hashes are stored, and a change counts at once."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

from ad_service.storage.tokens import ArtistLimits, Caller, Tokens
from blender_addon.wire import WireError


def test_a_token_names_its_artist_with_the_limits(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    token = tokens.add("anna", limits=ArtistLimits(queue=5, pixels=10**6))
    assert tokens.find(token.encode()) == Caller("anna", "artist", ArtistLimits(5, 10**6, None))
    for wrong in ("", token[:-1], token + "x", hashlib.sha256(token.encode()).hexdigest()):
        assert tokens.find(wrong.encode()) is None
    assert tokens.find(b"\xff") is None


def test_a_file_contains_no_token(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    made = [tokens.add(name) for name in ("anna", "ben")]
    assert len({*made}) == 2 and all(len(token) >= 40 for token in made)
    text = tokens.file.read_text()
    assert not [token for token in made if token in text] and '"anna"' in text
    assert os.name == "nt" or stat.S_IMODE(tokens.file.stat().st_mode) == 0o600


def test_another_process_sees_added_and_revoked_tokens_at_once(tmp_path: Path) -> None:
    service, command = Tokens(tmp_path), Tokens(tmp_path)
    assert service.find(b"x") is None
    anna, ben = command.add("anna"), command.add("ben")
    caller = service.find(anna.encode())
    assert caller is not None and service.has(caller)
    command.revoke("anna")
    assert service.find(anna.encode()) is None and not service.has(caller)
    assert service.find(ben.encode()) == Caller("ben", "artist")
    command.file.unlink()
    assert service.find(ben.encode()) is None


@pytest.mark.parametrize("name", ["", "a b", "../x", "-x", "ä", "x" * 65, "a\n"])
def test_a_name_with_other_characters_is_rejected(tmp_path: Path, name: str) -> None:
    with pytest.raises(WireError, match="the name is"):
        Tokens(tmp_path).add(name)


def test_a_name_has_one_token(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    tokens.add("anna")
    with pytest.raises(WireError, match="revoke it first"):
        tokens.add("anna")
    with pytest.raises(WireError, match="'ben' has no token; anna has one"):
        tokens.revoke("ben")


@pytest.mark.parametrize("text", ["{", "[1]", '[{"name": "anna"}]', "5"])
def test_a_damaged_file_lets_nobody_in_and_is_named(tmp_path: Path, text: str) -> None:
    tokens = Tokens(tmp_path)
    token = tokens.add("anna")
    tokens.file.write_text(text)
    for _ in range(2):
        with pytest.raises(WireError, match=r"tokens\.json cannot be used"):
            tokens.find(token.encode())
