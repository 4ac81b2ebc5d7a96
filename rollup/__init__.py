"""What it adds up to: classes, costs, the ledger, monthly usage, statements and the close."""
