"""The page for people: ``GET /`` and its files, which talk to the native API."""
