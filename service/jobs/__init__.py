"""Jobs: queue, dispatcher and store. Knows neither HTTP nor torch."""
