"""Sums that show no summand: a fixed-point ring, masks that cancel in it, keys for them agreed on."""
