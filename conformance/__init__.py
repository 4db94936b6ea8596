"""What roadworthy asks, records and judges."""
