"""The OpenQASM backend: circuits as text in the profile that a reader takes."""
