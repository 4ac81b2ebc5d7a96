"""Damaged messages against every decoder, for as long as you like: `make fuzz`."""
