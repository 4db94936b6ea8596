"""Who hears of what the validator finds: alerts on change, kept until they are sent."""
