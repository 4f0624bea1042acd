"""What drover is watched with: alert rules, and the dashboard with what it is made from."""
