"""What draws the pictures of the dashboards: questions, pages and a browser."""
