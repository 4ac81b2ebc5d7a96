"""Whose is it: the rules of attribution, the directory they read, and the store of its history."""
