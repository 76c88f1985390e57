"""Attacks: what somebody can work out from one party's view of a run, as functions of that view."""
