"""More clients than the service can serve, who honour what it tells them."""
