"""Time and order: job, queue, consumer. Knows neither HTTP nor torch."""
