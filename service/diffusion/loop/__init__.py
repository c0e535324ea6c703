"""The step loop and its rows."""
