"""Passes: one a file, in folders by what they work on."""
