"""State preparation."""
