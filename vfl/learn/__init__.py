"""What a party trains: networks, optimisers, metrics, checkpoints and its own random state.

Letters in shapes: n rows, b batch, p a party's features, q categorical columns, d cut width,
k contributors, c classes.
"""
