"""Alert rules as code, with their tests and runbooks."""
