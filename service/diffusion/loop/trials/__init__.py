"""Trial images: a model warmed up and measured before anyone waits for it."""
