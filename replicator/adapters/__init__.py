"""One vendor per file; vendor exceptions never leave this package."""
