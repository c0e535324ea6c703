"""The parts of the memory stress test: orders, clients, measures, verdicts, a picture of it all."""
