"""What audits found, by tenant and namespace, and what is served on the strength of it."""
