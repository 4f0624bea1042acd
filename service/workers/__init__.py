"""The steps of the flow, each an agent of its own. They know ports and domain values, and no driver."""
