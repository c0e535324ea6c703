"""The API of AUTOMATIC1111's web UI, for the clients that speak it."""
