"""A campaign of faults against workers on a real Kafka and a real Postgres: nothing lost, nothing doubled (`make faults`)."""
