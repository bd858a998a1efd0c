"""State preparation: a vector of amplitudes becomes a circuit."""
