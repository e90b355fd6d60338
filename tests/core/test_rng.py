"""Seeds: each use has its own stream, the same on every machine."""

from __future__ import annotations

from regraft.core.rng import derive, generator


def test_uses_and_seeds_have_streams_of_their_own():
    draws = {
        generator(seed, *names).random()
        for seed in (0, 1)
        for names in [("a",), ("b",), ("a", 1), ("a", 11), ("a1", 1)]
    }
    assert len(draws) == 10


def test_a_derived_seed_is_fixed_for_all_machines_and_times():
    import hashlib

    expected = int.from_bytes(hashlib.sha256(b"7\0shuffle\x003").digest()[:8], "big") // 2
    assert derive(7, "shuffle", 3) == expected < 2**63
