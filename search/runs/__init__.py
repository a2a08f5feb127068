"""The run folder: journal, records, tables, and the rule for "best"."""
