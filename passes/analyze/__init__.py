"""Analyses: facts about a program that change nothing."""
