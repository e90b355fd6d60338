"""How far the work is, where no line can be redrawn."""

import logging

from regraft.core import progress


def test_without_a_terminal_a_line_says_at_times_how_far_it_is(caplog, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0)
    with caplog.at_level(logging.INFO, "regraft"), progress.progress("Looking", 2000) as advance:
        advance(1500)
        advance(500)
    assert caplog.messages == ["Looking: 1,500 of 2,000", "Looking: 2,000 of 2,000"]


def test_nothing_is_said_of_what_is_quick_or_where_quiet_is_wanted(caplog, monkeypatch):
    with caplog.at_level(logging.INFO, "regraft"), progress.progress("Looking", 2) as advance:
        advance(2)
    monkeypatch.setattr(progress, "EVERY", 0)
    with caplog.at_level(logging.ERROR, "regraft"), progress.progress("Looking", 2) as advance:
        advance(2)
    assert caplog.messages == []
