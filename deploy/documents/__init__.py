"""What is written down for others and made from the code: schemas, settings, commands, metrics."""
