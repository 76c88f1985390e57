"""The two documents of a run: the job that all parties agree on, and each party's own site."""
