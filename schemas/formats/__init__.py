"""From a message's bytes to call records and SIP events: one file per format, pure functions."""
