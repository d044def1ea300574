"""Element-wise losses with masks, reduced as (sum, count)."""
