"""Groups of rules, a module each; ``alerts/tests`` has a folder of the same name for its tests."""
