"""The flow: Kafka, Faust agents, the one transaction per batch, the jobs around it, the command line."""
