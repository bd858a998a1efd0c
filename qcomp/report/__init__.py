"""What a compile did, as data, as JSON, as drawings and as one HTML page."""
