"""Replays a trace of requests and outcomes, and compares the router's choices with the logged ones."""
