"""A made-up world to try deciders in: its truth is drawn from measured tables, and known.

Whatever comes out of it is simulated. It says how a policy copes with what the scenario
does, not how fast any real backend is.
"""
