"""What people see: text and progress on streams that may end, errors in the words of the command line."""
