"""A campaign of faults against invoicing: one invoice per statement, whatever breaks (`make invoice-faults`)."""
