"""What the router would have done on a trace of requests and outcomes, against what was done."""
