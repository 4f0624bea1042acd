"""`drover doctor`: what the adapters found out, turned into verdicts and remedies, and printed."""
