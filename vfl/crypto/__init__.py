"""Group arithmetic, from the one library that each kind of it comes from."""
