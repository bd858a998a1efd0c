"""One-qubit unitaries in Clifford gates and T."""
