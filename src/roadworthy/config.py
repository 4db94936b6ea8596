"""Settings from `roadworthy.toml`, the environment and flags."""
