"""The HTTP server: answers from a workspace (`conpet serve`)."""
