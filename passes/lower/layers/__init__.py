"""Classical layers as quantum ones: one file a method, one pass over the table of them."""
