"""A made-up carrier and a month of its traffic, for the demo and for tests."""
