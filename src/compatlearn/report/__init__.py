"""What people see: the terminal's tables and the HTML page."""
