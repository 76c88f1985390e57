"""Ratings and the model that is learned from them: tables, splits, masks, factors, scores.

Letters: n ratings · o own entities of a participant · m shared entities · r rank · t numbers a shared entity.
"""
