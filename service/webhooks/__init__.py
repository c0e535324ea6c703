"""Signed deliveries to the addresses that clients name."""
