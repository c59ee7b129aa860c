"""Decisions and learning: pure, synchronous, standard library only.

Nothing in here reads a clock, owns a source of randomness, logs, waits or does I/O.
Time is passed in as `now` (Unix seconds, UTC), randomness as a `random.Random`.
"""
