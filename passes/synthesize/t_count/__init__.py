"""T counts below those of merged rotations: parity tables, their tensors, Hadamard gadgets."""
