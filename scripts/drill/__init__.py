"""The parts of the monitoring drill: see ``scripts/monitoring_drill.py``."""
