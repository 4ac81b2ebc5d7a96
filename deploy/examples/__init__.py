"""Programs of others, as they might be: short, and run by tests."""
