"""The parts of the performance benchmark: servers, clients, turns, figures, tables, a plot."""
