"""Passes that share precision out under one budget: bits per layer, accuracy per angle."""
