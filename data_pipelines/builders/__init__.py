"""One builder per dataset."""
