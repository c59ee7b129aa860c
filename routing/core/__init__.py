"""Deciding and learning: pure, synchronous, standard library only.

Nothing in here reads a clock, rolls its own dice, logs, waits or opens anything.
Time comes in as `now` (Unix seconds, UTC), chance as a `random.Random`.
"""
