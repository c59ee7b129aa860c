"""Simulated worlds in which routing policies are compared.

The truth of a world is drawn from measured tables and known to the simulator, so regret can
be computed exactly. Every figure is simulated: it says how a policy copes with the scenario,
not how fast any real backend is.
"""
