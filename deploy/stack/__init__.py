"""Postgres and Kafka as child processes, for the demo, the tests and trying things by hand."""
