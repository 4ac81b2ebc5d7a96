"""The words every stage uses: wire formats, tables, money, time, numbers and addresses."""
