"""Weights rounded column by column, each error fed into the columns that are still to come."""
