"""Pages of Grafana: the three dashboards and the rows that they are made of."""
