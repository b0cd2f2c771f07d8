"""One suite for all that keep the same protocol."""
