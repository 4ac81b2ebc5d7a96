"""What is asked for: profiles, lines, schedule, and each statement's one invoice through Stripe."""
