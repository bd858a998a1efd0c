"""Classical layers and data as circuits."""
