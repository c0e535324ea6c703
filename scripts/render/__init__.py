"""What draws the images of the dashboards: questions, pages and a browser."""
