"""What calls leave behind in passing is counted once, whoever adds to it meanwhile."""

from __future__ import annotations

from aragora_transport._notes import Count, Notes


class Busy(Notes):
    """As if another thread made a note while these are taken."""

    def __getitem__(self, place):
        found = super().__getitem__(place)
        self.append(9.0)
        return found


def test_what_is_noted_while_notes_are_taken_is_for_the_next_time():
    notes = Busy([3.0, 1.0, 2.0])
    assert notes.take() == [1.0, 2.0, 3.0]
    assert notes.take() == [9.0]
    assert list(notes) == [9.0]


def test_looking_at_a_count_adds_nothing_to_it():
    count = Count()
    assert [count.so_far(), count.so_far()] == [0, 0]
    count.one()
    count.one()
    assert [count.so_far(), count.so_far()] == [2, 2]
    count.one()
    assert count.so_far() == 3
