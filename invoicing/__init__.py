"""From a closed statement to at most one invoice in the account's own Stripe (I0-I11)."""
