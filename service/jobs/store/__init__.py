"""Jobs as rows."""
