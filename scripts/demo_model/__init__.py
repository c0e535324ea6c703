"""Draw, train and evaluate the bundled demo model."""
