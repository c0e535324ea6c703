"""Memory: what images take, how many fit, and the recovery when they do not."""
