"""What jobs share: warehouse, profile, contracts, Spark session, tracking, command line."""
