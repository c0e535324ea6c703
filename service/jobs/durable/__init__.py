"""Jobs that outlive their connection and their process."""
