"""Texts made from the data of a run: the plan, the report, the section about monitoring."""
