"""Looking at a run while it trains: dashboards and profiles."""
